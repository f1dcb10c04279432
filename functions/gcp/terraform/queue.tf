# Calls that wait: a topic that pushes to `recover`, and one that keeps what could not be answered.

locals {
  kept_in = var.residency == "none" ? [] : [var.regions]
}

resource "google_pubsub_topic" "jobs" {
  name = "${var.name}-jobs"

  dynamic "message_storage_policy" {
    for_each = local.kept_in
    content {
      allowed_persistence_regions = message_storage_policy.value
      enforce_in_transit          = true
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_pubsub_topic" "dead" {
  name = "${var.name}-jobs-dead"

  dynamic "message_storage_policy" {
    for_each = local.kept_in
    content {
      allowed_persistence_regions = message_storage_policy.value
      enforce_in_transit          = true
    }
  }

  depends_on = [google_project_service.api]
}

resource "google_pubsub_subscription" "jobs" {
  name                       = "${var.name}-jobs"
  topic                      = google_pubsub_topic.jobs.id
  ack_deadline_seconds       = 600 # also how long a push may take
  message_retention_duration = "604800s"

  push_config {
    push_endpoint = google_cloud_run_v2_service.service["recover/${var.regions[0]}"].uri

    oidc_token {
      service_account_email = google_service_account.caller["pubsub"].email
      audience              = google_cloud_run_v2_service.service["recover/${var.regions[0]}"].uri
    }
  }

  # Only for the loss of the store or of the queue: what must wait again is sent again by `recover`.
  retry_policy {
    minimum_backoff = "10s"
    maximum_backoff = "600s"
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead.id
    max_delivery_attempts = 20
  }

  expiration_policy {
    ttl = "" # never: by default a subscription that nobody used for 31 days is deleted
  }
}

# `firsttoken jobs dead` pulls, looks and gives back: a retry policy would hide what was looked at.
resource "google_pubsub_subscription" "dead" {
  name                       = "${var.name}-jobs-dead"
  topic                      = google_pubsub_topic.dead.id
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }
}
