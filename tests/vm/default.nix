{ lib, runTest }: { }
