"""Appliance: one file that turns a Linux host into a self-updating, self-healing node."""
