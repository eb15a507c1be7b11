"""The commands of darts, one module each, loaded when they are called."""
