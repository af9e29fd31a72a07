# expect: cluster_listen.*is not of type
{
  services.drover = {
    enable = true;
    master.enable = true;
    settings.master.cluster_listen = "0.0.0.0";
  };
}
