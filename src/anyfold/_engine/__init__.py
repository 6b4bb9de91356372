"""How a plan is driven: the only loop that submits and gathers."""
