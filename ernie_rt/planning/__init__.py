"""What a model needs and how fast it will be, before anything is downloaded, loaded or imported."""
