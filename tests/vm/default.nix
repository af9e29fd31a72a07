# The scenarios as NixOS VM tests: the very texts that the lab runs, on machines that have services.drover. Beside them the
# tests that are about NixOS itself, `nixos-*.nix`.
#
# A scenario's header says which machines it needs (`lab/scenarios.py` describes it). Before its text stand the lists of
# masters and agents, the settings that the lab's nodes have too (`node/`), and the story.
#
# `runTest` is `pkgs.testers.runNixOSTest` with services.drover known to every node.
{ lib, runTest }:
let
  masterSettings = lib.importTOML ./node/master.toml;
  agentSettings = lib.importTOML ./node/agent.toml;

  # A JSON string is a Python string.
  prelude = masters: agents: ''
    masters = [${lib.concatStringsSep ", " masters}]
    agents = [${lib.concatStringsSep ", " agents}]
    MASTER_SETTINGS = ${builtins.toJSON (builtins.readFile ./node/master.toml)}
    AGENT_SETTINGS = ${builtins.toJSON (builtins.readFile ./node/agent.toml)}
    ${builtins.readFile ./story.py}
  '';

  # "# nodes: masters=3 agents=3 vm=false" -> { masters = "3"; agents = "3"; vm = "false"; }
  headerOf =
    file:
    let
      first = lib.head (lib.splitString "\n" (builtins.readFile file));
      words = lib.splitString " " (lib.removePrefix "# nodes: " first);
      pair = word: builtins.match "([a-z]+)=([a-z0-9]+)" word;
    in
    if !lib.hasPrefix "# nodes: " first || lib.any (word: pair word == null) words then
      throw "${toString file}: the first line must be like `# nodes: masters=3 agents=3 vm=false`"
    else
      lib.listToAttrs (
        map (word: lib.nameValuePair (lib.elemAt (pair word) 0) (lib.elemAt (pair word) 1)) words
      );

  shapeOf =
    file:
    let
      header = headerOf file;
      masterCount = lib.toInt header.masters;
      agentCount = lib.toInt header.agents;
      names = map (number: "n${toString number}") (lib.range 1 (masterCount + agentCount));
    in
    {
      key = "${header.masters}-${header.agents}";
      inherit names;
      masters = lib.take masterCount names;
      # Without machines of their own, agents are the masters' machines.
      agents = if agentCount == 0 then names else lib.drop masterCount names;
      # `droverd standalone` is started by the scenario and has no configuration.
      isStandalone = agentCount == 0;
    };

  indexOf = wanted: lib.lists.findFirstIndex (each: each == wanted) 0;

  # A node as the story expects it: roles and settings in place, an identity still to be made.
  nodeOf =
    shape: name:
    { lib, pkgs, ... }:
    {
      services.drover = {
        enable = true;
        openFirewall = true;
        master.enable = lib.elem name shape.masters;
        agent.enable = lib.elem name shape.agents;
        agent.path = [ pkgs.python3 ];
        settings = {
          master = masterSettings;
          agent = agentSettings // {
            masters = map (master: "${master}:7071") shape.masters;
            attributes.rack = if lib.mod (indexOf name shape.agents) 2 == 0 then "a" else "b";
          };
        };
      };
      environment.etc."drover/drover.toml".enable = !shape.isStandalone;

      # What tasks are offered, as node/agent.toml says.
      networking.firewall.allowedTCPPortRanges = lib.mkIf (lib.elem name shape.agents) [
        {
          from = 31000;
          to = 31999;
        }
      ];

      environment.systemPackages = [
        pkgs.curl
        pkgs.nftables
        pkgs.python3
      ];
      virtualisation.memorySize = 1024;
    };

  # Scenarios of one shape have the same machines, which are evaluated once: of a machine and of a test, the machine is
  # what takes the time and the memory.
  machinesOf = lib.mapAttrs (
    _: files:
    let
      shape = shapeOf (lib.head files);
    in
    (runTest {
      name = "drover-machines-${shape.key}";
      nodes = lib.genAttrs shape.names (nodeOf shape);
      testScript = "";
    }).config.nodes
  ) (lib.groupBy (file: (shapeOf file).key) scenarios);

  scenarioTest =
    file:
    let
      shape = shapeOf file;
    in
    runTest {
      name = "drover-${lib.removeSuffix ".py" (baseNameOf file)}";
      meta.maintainers = [ ];

      # They are machines already, not modules that make one.
      node.type = lib.types.raw;
      nodes = machinesOf.${shape.key};

      # What the scenario may take, and the boot of its machines.
      globalTimeout = lib.toInt ((headerOf file).timeout or "300") + 600;

      testScript = prelude shape.masters shape.agents + builtins.readFile file;
    };

  filesOf =
    directory: pattern:
    map (name: directory + "/${name}") (
      lib.filter (name: builtins.match pattern name != null) (
        lib.attrNames (builtins.readDir directory)
      )
    );
  # Those that need the droverd of one version from now have it in the lab only.
  scenarios = lib.filter (file: (headerOf file).next or "false" != "true") (
    filesOf ./scenarios ".*\\.py"
  );
  nixosTest = file: runTest (import file { inherit prelude; });
  named =
    suffix: make: file:
    lib.nameValuePair "vm-${lib.removeSuffix suffix (baseNameOf file)}" (make file);
in
lib.listToAttrs (
  map (named ".py" scenarioTest) scenarios
  ++ map (named ".nix" nixosTest) (filesOf ./. "nixos-.*\\.nix")
)
