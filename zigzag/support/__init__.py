"""What every part may need: optional extras, files, the machine line, progress bars."""
