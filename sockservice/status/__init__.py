"""What an operator sees: figures, health, metrics, and the page that shows them, over HTTP."""
