"""A small real hospital: recipes that build its machines, and what a clinical workstation does with them."""
