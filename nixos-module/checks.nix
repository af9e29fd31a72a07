# What a flake check can tell of the module without building a machine: each scenario evaluates to a whole system, or is
# refused with the message it expects, and the daemons' rendered units hold every directive of `units/`.
{
  lib,
  pkgs,
  evalMachine,
}:
let
  machine =
    scenario:
    evalMachine [
      {
        # As little of a machine as NixOS takes.
        fileSystems."/" = {
          device = "none";
          fsType = "tmpfs";
        };
        boot.loader.grub.enable = false;
        system.stateVersion = lib.trivial.release;
      }
      scenario
    ];

  scenarios = lib.filterAttrs (name: _: lib.hasSuffix ".nix" name) (builtins.readDir ./scenarios);
  named = name: ./scenarios + "/${name}";

  failedAssertions =
    system:
    map (entry: entry.message) (lib.filter (entry: !entry.assertion) system.config.assertions);

  # Forces the evaluation of the whole system without making its build a part of the check.
  evaluated =
    system: builtins.unsafeDiscardStringContext system.config.system.build.toplevel.drvPath;

  directives =
    file:
    lib.filter (line: line != "" && !lib.hasPrefix "#" line && !lib.hasPrefix "[" line) (
      lib.splitString "\n" (builtins.readFile file)
    );

  # ExecStart= differs by the store path of its program.
  missingDirectives =
    system: unit:
    let
      rendered = lib.splitString "\n" system.config.systemd.units.${unit}.text;
    in
    lib.filter (line: !lib.hasPrefix "ExecStart=" line && !lib.elem line rendered) (
      directives (../units + "/${unit}")
    );

  accepted =
    name:
    let
      system = machine (named name);
      shipped = lib.filter (unit: builtins.pathExists (../units + "/${unit}")) (
        lib.attrNames system.config.systemd.units
      );
      missing = lib.concatMap (
        unit: map (line: "${unit}: ${line}") (missingDirectives system unit)
      ) shipped;
    in
    if missing != [ ] then
      throw "${name}: directives of units/ that the machine does not have:\n${lib.concatLines missing}"
    else
      evaluated system;

  # A message thrown by the module system cannot be read from within Nix; that something was thrown can.
  refused =
    name:
    let
      system = machine (named name);
      expected = builtins.match "# expect: ([^\n]+)\n.*" (builtins.readFile (named name));
      matches = message: builtins.match "(.|\n)*${lib.head expected}(.|\n)*" message != null;
      assertions = builtins.tryEval (
        let
          messages = failedAssertions system;
        in
        builtins.deepSeq messages messages
      );
      whole = builtins.tryEval (evaluated system);
    in
    if expected == null then
      throw "${name}: its first line must be `# expect: regex of the message`"
    else if assertions.success && lib.any matches assertions.value then
      "refused by an assertion"
    else if assertions.success && assertions.value != [ ] then
      throw "${name}: refused with another message: ${lib.concatLines assertions.value}"
    else if whole.success then
      throw "${name}: not refused"
    else
      "refused by a type";
in
lib.mapAttrs' (
  name: _:
  let
    stem = lib.removeSuffix ".nix" name;
  in
  lib.nameValuePair "module-${stem}" (
    pkgs.writeText "drover-module-${stem}" (
      if lib.hasPrefix "fail-" name then refused name else accepted name
    )
  )
) scenarios
