"""What a slide is, and the only code that opens one."""
