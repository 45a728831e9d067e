"""Clips of video: their store on one device, and generated clips of moving images."""
