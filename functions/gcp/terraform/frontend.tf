# One address for all regions: the nearest healthy one answers.

resource "google_compute_region_network_endpoint_group" "chat" {
  for_each = toset(var.regions)

  name                  = "${var.name}-chat"
  region                = each.value
  network_endpoint_type = "SERVERLESS"

  cloud_run {
    service = google_cloud_run_v2_service.service["chat/${each.value}"].name
  }
}

resource "google_compute_backend_service" "chat" {
  name                  = "${var.name}-chat"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  protocol              = "HTTPS"

  # The health of a region is what its readiness probes say: no health check stands here.
  dynamic "backend" {
    for_each = toset(var.regions)
    content {
      group = google_compute_region_network_endpoint_group.chat[backend.value].id
    }
  }
}

resource "google_compute_url_map" "this" {
  name            = var.name
  default_service = google_compute_backend_service.chat.id
}

resource "google_compute_managed_ssl_certificate" "this" {
  count = length(var.certificates) == 0 ? 1 : 0
  name  = var.name

  managed {
    domains = [var.domain]
  }

  depends_on = [google_project_service.api]
}

resource "google_compute_ssl_policy" "this" {
  name            = var.name
  profile         = "MODERN"
  min_tls_version = "TLS_1_2"

  depends_on = [google_project_service.api]
}

resource "google_compute_target_https_proxy" "this" {
  name             = var.name
  url_map          = google_compute_url_map.this.id
  ssl_certificates = concat(var.certificates, google_compute_managed_ssl_certificate.this[*].id)
  ssl_policy       = google_compute_ssl_policy.this.id
}

resource "google_compute_global_address" "this" {
  name = var.name

  depends_on = [google_project_service.api]
}

# No port 80: an API key must not cross the network in the clear, not even to be redirected.
resource "google_compute_global_forwarding_rule" "https" {
  name                  = "${var.name}-https"
  load_balancing_scheme = "EXTERNAL_MANAGED"
  target                = google_compute_target_https_proxy.this.id
  ip_address            = google_compute_global_address.this.address
  port_range            = "443"
}
