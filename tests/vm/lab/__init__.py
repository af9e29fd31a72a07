"""The lab: a cluster of real systemd machines on one machine, for trying drover and for testing it.

A lab is one process tree in a mount, network and PID namespace of its own (`enclosure`). In it stand a bridge and
nodes (`lab`): containers whose PID 1 is systemd (`container`), or emulated machines where the kernel's controllers
are really enforced (`virtual`). Both kinds speak the vocabulary of the NixOS test driver (`machine`), so that a
scenario (`scenarios`) is one text for the lab and for a NixOS VM test. Root file systems are built once and
cached (`roots`); what the machine lacks is installed first (`host`).

Nothing here needs more than Python's standard library.
"""
