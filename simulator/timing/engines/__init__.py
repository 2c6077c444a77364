"""The engines that find a schedule's cycles, compiled and event by event."""
