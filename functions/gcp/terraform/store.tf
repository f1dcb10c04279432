# What instances share: a network in which a Redis can be reached, optionally a Memorystore, and the large objects.

locals {
  # A multi-region of Cloud Storage outlives a region; elsewhere than on these continents there is none.
  continent       = lookup({ europe = "EU", us = "US", asia = "ASIA" }, split("-", var.regions[0])[0], var.regions[0])
  bucket_location = var.residency == "none" ? local.continent : upper(var.residency)
  valkey          = var.memorystore == "" ? 0 : 1
}

resource "google_compute_network" "this" {
  name                    = var.name
  auto_create_subnetworks = false

  depends_on = [google_project_service.api]
}

resource "google_compute_subnetwork" "this" {
  for_each = toset(var.regions)

  name          = "${var.name}-${each.value}"
  region        = each.value
  network       = google_compute_network.this.id
  ip_cidr_range = cidrsubnet("10.64.0.0/16", 8, index(var.regions, each.value))
}

resource "google_storage_bucket" "objects" {
  name                        = "${var.project}-${var.name}"
  location                    = local.bucket_location
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  # Longer than a job waits and can be fetched (jobs.expires + jobs.keep), as nobody else deletes its objects.
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 2
      matches_prefix = ["firsttoken/job-"]
    }
  }

  # And than files can be fetched (batch.keep).
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 31
      matches_prefix = ["firsttoken/file-"]
    }
  }

  soft_delete_policy {
    retention_duration_seconds = 0 # prompts are gone when they are deleted
  }

  depends_on = [google_project_service.api]
}

resource "google_project_service" "memorystore" {
  for_each = toset(local.valkey == 0 ? [] : ["memorystore.googleapis.com", "networkconnectivity.googleapis.com"])

  service            = each.value
  disable_on_destroy = false
}

resource "google_network_connectivity_service_connection_policy" "memorystore" {
  count = local.valkey

  name          = "${var.name}-memorystore"
  location      = var.regions[0]
  service_class = "gcp-memorystore"
  network       = google_compute_network.this.id

  psc_config {
    subnetworks = [google_compute_subnetwork.this[var.regions[0]].id]
  }

  depends_on = [google_project_service.memorystore]
}

resource "google_memorystore_instance" "store" {
  count = local.valkey

  instance_id   = var.name
  location      = var.regions[0]
  mode          = "CLUSTER_DISABLED"
  node_type     = var.memorystore
  shard_count   = 1
  replica_count = 1 # in another zone

  engine_configs = {
    maxmemory-policy = "noeviction" # others may throw away a lease that is held
  }

  desired_auto_created_endpoints {
    project_id = var.project
    network    = google_compute_network.this.id
  }

  depends_on = [google_network_connectivity_service_connection_policy.memorystore]
}

resource "google_secret_manager_secret" "redis_url" {
  count = local.valkey

  secret_id = "${var.name}-redis-url"

  replication {
    user_managed {
      dynamic "replicas" {
        for_each = toset(var.regions)
        content {
          location = replicas.value
        }
      }
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_secret_manager_secret_version" "redis_url" {
  count = local.valkey

  secret = google_secret_manager_secret.redis_url[0].id
  secret_data = format("redis://%s:6379/0", one([
    for connection in google_memorystore_instance.store[0].endpoints[0].connections :
    connection.psc_auto_connection[0].ip_address
    if connection.psc_auto_connection[0].connection_type == "CONNECTION_TYPE_PRIMARY"
  ]))
}
