"""The only door to the machine: files, disks, processes, clock, entropy, sockets, users."""
