"""What keeps a run whole: its lock, its room on the disk, and what may change when it goes on."""
