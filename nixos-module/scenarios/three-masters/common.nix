# What the three masters have in common: `settings` is one value for all, and their names lead to one another.
{
  services.drover = {
    enable = true;
    openFirewall = true;
    master.enable = true;
    settings.master.agent_timeout = "30s";
  };

  networking.hosts = {
    "192.0.2.1" = [ "n1" ];
    "192.0.2.2" = [ "n2" ];
    "192.0.2.3" = [ "n3" ];
  };
}
