"""What every experiment leaves behind, and how it is read again."""
