# What somebody must hear of, and how long logs are kept.

locals {
  chat     = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name = \"${var.name}-chat\""
  channels = google_monitoring_notification_channel.email[*].id
}

resource "google_monitoring_notification_channel" "email" {
  count = var.alert_email == "" ? 0 : 1

  display_name = var.name
  type         = "email"
  labels       = { email_address = var.alert_email }

  depends_on = [google_project_service.api]
}

resource "google_monitoring_alert_policy" "dead_letters" {
  display_name          = "${var.name}: dead letters"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "Calls were given up"

    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.dead.name}\" AND metric.type = \"pubsub.googleapis.com/subscription/num_undelivered_messages\""
      comparison      = "COMPARISON_GT"
      threshold_value = 0
      duration        = "0s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content = "`firsttoken jobs dead` shows them with their reasons, and sends them again."
  }
}

resource "google_monitoring_alert_policy" "waiting" {
  display_name          = "${var.name}: jobs wait"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "The oldest job waits for more than 15 minutes"

    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${google_pubsub_subscription.jobs.name}\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = 900
      duration        = "300s"

      aggregations {
        alignment_period   = "60s"
        per_series_aligner = "ALIGN_MAX"
      }
    }
  }

  documentation {
    content = "`recover` fails, or its region does: docs/deploy-gcp.md says how another region takes over."
  }
}

resource "google_monitoring_alert_policy" "errors" {
  display_name          = "${var.name}: errors"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "More than 5 % of the answers of a region are 5xx"

    condition_threshold {
      filter             = "${local.chat} AND metric.type = \"run.googleapis.com/request_count\" AND metric.labels.response_code_class = \"5xx\""
      denominator_filter = "${local.chat} AND metric.type = \"run.googleapis.com/request_count\""
      comparison         = "COMPARISON_GT"
      threshold_value    = 0.05
      duration           = "300s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["resource.label.location"]
      }

      denominator_aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_RATE"
        cross_series_reducer = "REDUCE_SUM"
        group_by_fields      = ["resource.label.location"]
      }
    }
  }
}

resource "google_monitoring_alert_policy" "latency" {
  display_name          = "${var.name}: latency"
  combiner              = "OR"
  notification_channels = local.channels

  conditions {
    display_name = "P99 of whole answers is over 60 s"

    condition_threshold {
      filter          = "${local.chat} AND metric.type = \"run.googleapis.com/request_latencies\""
      comparison      = "COMPARISON_GT"
      threshold_value = 60000 # ms
      duration        = "300s"

      aggregations {
        alignment_period     = "300s"
        per_series_aligner   = "ALIGN_DELTA"
        cross_series_reducer = "REDUCE_PERCENTILE_99"
        group_by_fields      = ["resource.label.location"]
      }
    }
  }
}

# Time to first token, from the line that the app logs for each call: for charts.
resource "google_logging_metric" "ttft" {
  name            = "${var.name}/ttft_ms"
  filter          = "${local.chat} AND jsonPayload.ttft_ms >= 0"
  value_extractor = "EXTRACT(jsonPayload.ttft_ms)"

  label_extractors = {
    target = "EXTRACT(jsonPayload.target)"
  }

  metric_descriptor {
    metric_kind = "DELTA"
    value_type  = "DISTRIBUTION"
    unit        = "ms"

    labels {
      key        = "target"
      value_type = "STRING"
    }
  }

  bucket_options {
    exponential_buckets {
      num_finite_buckets = 40
      growth_factor      = 1.3
      scale              = 10
    }
  }
}

resource "google_logging_project_bucket_config" "services" {
  project        = var.project
  bucket_id      = var.name
  location       = var.residency == "none" ? "global" : var.residency
  retention_days = var.log_days

  depends_on = [google_project_service.api]
}

resource "google_logging_project_sink" "services" {
  name                   = var.name
  destination            = "logging.googleapis.com/${google_logging_project_bucket_config.services.id}"
  filter                 = "resource.type = \"cloud_run_revision\" AND resource.labels.service_name =~ \"^${var.name}-\""
  unique_writer_identity = true
}

# Kept once, in the bucket above.
resource "google_logging_project_exclusion" "services" {
  name   = var.name
  filter = google_logging_project_sink.services.filter
}
