"""What any picture shows without a trained encoder, to keep one honest."""
