"""Stand-ins for what surrounds an enclosure: machines, a hospital, a workstation, and those who attack."""
