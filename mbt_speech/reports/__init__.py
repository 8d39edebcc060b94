"""What runs leave to read: tables, curves, pictures, model cards, pages."""
