"""What can lead a drawing beside its prompt: ControlNets, T2I-Adapters and IP-Adapters."""
