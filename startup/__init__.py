"""What runs before the model is loaded: the process's age, reading ahead, which files a model directory has."""
