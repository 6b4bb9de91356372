"""The commands of ``anyfold``, one file each: ``register`` adds it to the parser, ``run`` does it."""
