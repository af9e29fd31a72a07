# A machine that only runs tasks. The token comes from whatever brings secrets to the machine.
{
  services.drover = {
    enable = true;
    settings.name = "a1";
    agent = {
      enable = true;
      join = {
        tokenFile = "/run/secrets/drover-agent-token";
        master = "n1:7071";
      };
    };
    settings.agent = {
      masters = [
        "n1:7071"
        "n2:7071"
        "n3:7071"
      ];
      attributes.rack = "a";
      resources = {
        cpus = 6.0;
        mem = "24G";
        ports = [ "31000-32000" ];
      };
      reserved.jobs.mem = "4G";
    };
  };
}
