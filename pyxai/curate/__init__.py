"""What a person should see of a folder of photos before training on it; nothing is trained."""
