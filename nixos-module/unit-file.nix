# Reads a systemd unit file, so that a NixOS machine runs with the very directives every other packaging ships.
#
# The result is one attribute set per section: a key given once is a string, a key given several times (which systemd
# adds up) is the list of its values, in order. Continuation lines are refused rather than misread.
{ lib }:
path:
let
  lines = lib.filter (line: line != "" && !lib.hasPrefix "#" line && !lib.hasPrefix ";" line) (
    map lib.trim (lib.splitString "\n" (builtins.readFile path))
  );

  step =
    { section, values }:
    line:
    let
      header = builtins.match "\\[(.+)]" line;
      assignment = builtins.match "([A-Za-z0-9]+)[ ]*=[ ]*(.*)" line;
      key = builtins.elemAt assignment 0;
      value = builtins.elemAt assignment 1;
      before = values.${section}.${key} or null;
    in
    if header != null then
      {
        section = builtins.head header;
        values = {
          ${builtins.head header} = { };
        }
        // values;
      }
    else if assignment == null || section == null || lib.hasSuffix "\\" line then
      throw "${toString path}: cannot read the line: ${line}"
    else
      {
        inherit section;
        values = values // {
          ${section} = values.${section} // {
            ${key} = if before == null then value else lib.toList before ++ [ value ];
          };
        };
      };
in
(lib.foldl' step {
  section = null;
  values = { };
} lines).values
