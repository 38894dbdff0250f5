"""What the machines of the hospital run besides packaged software: each file is copied into its machine as it is."""
