# The scenarios as NixOS VM tests: the very texts that the lab runs, on machines that have services.drover.
#
# Each scenario's header says which machines it needs (`lab/scenarios.py` describes it). Before its text stand the lists of
# masters and agents, the settings that the lab's nodes have too (`node/`), and the story.
{ lib, runTest }:
let
  master = lib.importTOML ./node/master.toml;
  agent = lib.importTOML ./node/agent.toml;

  header =
    file:
    let
      line = lib.head (lib.splitString "\n" (builtins.readFile file));
      words = lib.splitString " " (lib.removePrefix "# nodes: " line);
      pair =
        word:
        let
          parts = lib.splitString "=" word;
        in
        lib.nameValuePair (lib.head parts) (lib.last parts);
    in
    lib.listToAttrs (map pair words);

  test =
    file:
    let
      wants = header file;
      masters = names 1 (lib.toInt wants.masters);
      agents = names (lib.toInt wants.masters + 1) (lib.toInt wants.agents);
      names = first: count: lib.genList (index: "n${toString (first + index)}") count;
      isCluster = agents != [ ];
      list = machines: "[${lib.concatStringsSep ", " machines}]";
    in
    {
      name = "drover-${lib.removeSuffix ".py" (baseNameOf file)}";

      nodes = lib.genAttrs (masters ++ agents) (
        name:
        { pkgs, ... }:
        {
          virtualisation.memorySize = 1024;
          networking.firewall.enable = false;
          environment.systemPackages = [
            pkgs.curl
            pkgs.python3
          ];
          services.drover = lib.mkIf isCluster {
            enable = true;
            master.enable = lib.elem name masters;
            agent.enable = lib.elem name agents;
            agent.path = [ pkgs.python3 ];
            settings = {
              inherit master;
              agent = agent // {
                masters = map (master: "${master}:7071") masters;
                attributes.rack = if lib.mod (lib.lists.findFirstIndex (each: each == name) 0 agents) 2 == 0 then "a" else "b";
              };
            };
          };
        }
      );

      testScript = ''
        masters = ${list masters}
        agents = ${list (if isCluster then agents else masters)}
        MASTER_SETTINGS = ${builtins.toJSON (builtins.readFile ./node/master.toml)}
        AGENT_SETTINGS = ${builtins.toJSON (builtins.readFile ./node/agent.toml)}
      ''
      + builtins.readFile ./story.py
      + builtins.readFile file;

      # The story is written to be read; what it is told by JSON has no type.
      skipTypeCheck = true;
    };

  scenarios = lib.filterAttrs (name: _: lib.hasSuffix ".py" name) (builtins.readDir ./scenarios);
in
lib.mapAttrs' (
  name: _:
  lib.nameValuePair "vm-${lib.removeSuffix ".py" name}" (runTest (test (./scenarios + "/${name}")))
) scenarios
