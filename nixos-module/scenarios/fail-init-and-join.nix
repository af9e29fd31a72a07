# expect: Keep clusterInit on the first master only
{
  services.drover = {
    enable = true;
    master = {
      enable = true;
      clusterInit = true;
      join = {
        tokenFile = "/run/secrets/drover-master-token";
        master = "n2:7071";
      };
    };
  };
}
