"""State machines that look for the shortest sequence of steps that breaks a promise."""
