"""The declaration of the settings, and what is derived from it; `anyfold.settings` is the way in."""
