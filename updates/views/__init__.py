"""The pages of the updates floor."""
