"""Tasks: the photographs, what is done to them, and the patches that networks train on."""
