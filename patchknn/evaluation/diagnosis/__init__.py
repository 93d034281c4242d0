"""What is to be said of an embedding: its bits, hubs and maps, and labels that seem wrong."""
