"""What a slide model is to say of a slide: its class, a number, or a risk over time."""
