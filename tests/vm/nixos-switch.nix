# What is NixOS' own: a cluster that founds and joins itself at boot, and a switch that touches no task.
{ prelude }:
let
  masters = [ "n1" ];
  agents = [
    "n1"
    "n2"
  ];

  common =
    { pkgs, ... }:
    {
      services.drover = {
        enable = true;
        openFirewall = true;
        agent.enable = true;
      };
      environment.systemPackages = [ pkgs.curl ];
      virtualisation.memorySize = 1024;
    };
in
{
  name = "drover-nixos-switch";
  meta.maintainers = [ ];

  nodes = {
    n1 = {
      imports = [ common ];
      services.drover.master.enable = true;
      services.drover.master.clusterInit = true;
    };

    n2 = {
      imports = [ common ];
      services.drover.agent.join = {
        tokenFile = "/run/secrets/drover-agent-token";
        master = "n1:7071";
      };
      services.drover.settings.agent.masters = [ "n1:7071" ];

      specialisation.changed.configuration = {
        services.drover.settings.agent.attributes.rack = "changed";
      };
    };
  };

  globalTimeout = 900;

  testScript = prelude masters agents + ''
    start_all()

    with subtest("the first machine founds the cluster at its first boot"):
        n1.wait_for_unit("droverd-master.service", timeout=120)
        n1.wait_for_unit("droverd-agent.service", timeout=120)

    with subtest("a machine whose token comes late joins when it is there"):
        n2.wait_until_succeeds("test $(systemctl show --property=NRestarts --value droverd-join-agent) -gt 0", timeout=120)
        n2.require_unit_state("droverd-agent.service", "inactive")
        token = n1.succeed("drover token create --role agent").split()[-1]
        write_file(n2, "/run/secrets/drover-agent-token", token)
        wait_whole()

    with subtest("the daemons run as they are meant to"):
        t.assertEqual(n1.get_unit_property("droverd-master.service", "User"), "drover")
        n1.succeed("test $(stat --format=%U:%a /var/lib/droverd/master) = drover:700")
        n2.succeed("test $(stat --format=%U:%a /var/lib/droverd/agent) = root:700")

    with subtest("a switch with a changed setting restarts the agent and no task"):
        deploy(sleeper("/rest", 6))
        before = invocations(wait_running("/rest", 6))
        units = unit_facts(n2)
        t.assertTrue(units, "no task was placed on n2")
        agent = n2.get_unit_property("droverd-agent.service", "MainPID")
        n2.succeed("/run/booted-system/specialisation/changed/bin/switch-to-configuration test")
        n2.wait_for_unit("droverd-agent.service", timeout=SOON)
        t.assertNotEqual(agent, n2.get_unit_property("droverd-agent.service", "MainPID"))
        wait_node(n2, "up")
        t.assertEqual(before, invocations(wait_running("/rest", 6)))
        t.assertEqual(units, unit_facts(n2))

    with subtest("so does a new PID 1"):
        n2.succeed("systemctl daemon-reexec")
        wait_node(n2, "up")
        t.assertEqual(before, invocations(wait_running("/rest", 6)))

    with subtest("a further boot keeps the identity and needs no token"):
        identity = n2.succeed("cat /var/lib/droverd/agent/pki/identity.json")
        n2.shutdown()
        wait_node(n2, "unreachable", timeout=120)
        n2.start()
        wait_node(n2, "up", timeout=120)
        t.assertEqual(identity, n2.succeed("cat /var/lib/droverd/agent/pki/identity.json"))
  '';
}
