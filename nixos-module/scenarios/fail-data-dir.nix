# expect: data_dir must be /var/lib/droverd
{
  services.drover = {
    enable = true;
    master.enable = true;
    settings.data_dir = "/srv/drover";
  };
}
