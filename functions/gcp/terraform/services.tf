locals {
  # service.yaml says how the services run; only the mapping to the provider's words stands here.
  described = merge([
    for region in var.regions : {
      for text in split("\n---\n", templatefile("${path.module}/../service.yaml", {
        name           = var.name
        project        = var.project
        region         = region
        image          = var.image
        upstream_url   = var.upstream_url
        upstream_model = var.upstream_model
      })) : "${trimprefix(yamldecode(text).metadata.name, "${var.name}-")}/${region}" => yamldecode(text)
    }
  ]...)

  services = {
    for key, described in local.described : key => {
      role        = split("/", key)[0]
      region      = split("/", key)[1]
      annotations = described.metadata.annotations
      revision    = described.spec.template.metadata.annotations
      spec        = described.spec.template.spec
      container   = described.spec.template.spec.containers[0]
    }
  }

  ingress = {
    "internal"                          = "INGRESS_TRAFFIC_INTERNAL_ONLY"
    "internal-and-cloud-load-balancing" = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
  }
}

resource "google_cloud_run_v2_service" "service" {
  for_each = local.services

  name                 = "${var.name}-${each.value.role}"
  location             = each.value.region
  ingress              = local.ingress[each.value.annotations["run.googleapis.com/ingress"]]
  invoker_iam_disabled = lookup(each.value.annotations, "run.googleapis.com/invoker-iam-disabled", "false") == "true"
  deletion_protection  = false

  scaling {
    min_instance_count = tonumber(each.value.annotations["run.googleapis.com/minScale"])
    max_instance_count = tonumber(each.value.annotations["run.googleapis.com/maxScale"])
  }

  template {
    service_account                  = google_service_account.service[each.value.role].email
    max_instance_request_concurrency = each.value.spec.containerConcurrency
    timeout                          = "${each.value.spec.timeoutSeconds}s"

    vpc_access {
      egress = "PRIVATE_RANGES_ONLY"

      network_interfaces {
        network    = google_compute_network.this.name
        subnetwork = google_compute_subnetwork.this[each.value.region].name
      }
    }

    containers {
      image = each.value.container.image

      resources {
        limits            = each.value.container.resources.limits
        startup_cpu_boost = each.value.revision["run.googleapis.com/startup-cpu-boost"] == "true"
        cpu_idle          = true
      }

      dynamic "startup_probe" {
        for_each = try([each.value.container.startupProbe], [])
        content {
          period_seconds    = startup_probe.value.periodSeconds
          timeout_seconds   = startup_probe.value.timeoutSeconds
          failure_threshold = startup_probe.value.failureThreshold

          http_get {
            path = startup_probe.value.httpGet.path
          }
        }
      }

      dynamic "readiness_probe" {
        for_each = try([each.value.container.readinessProbe], [])
        content {
          period_seconds    = readiness_probe.value.periodSeconds
          timeout_seconds   = readiness_probe.value.timeoutSeconds
          success_threshold = readiness_probe.value.successThreshold
          failure_threshold = readiness_probe.value.failureThreshold

          http_get {
            path = readiness_probe.value.httpGet.path
          }
        }
      }

      dynamic "env" {
        for_each = { for env in each.value.container.env : env.name => env }
        content {
          name  = env.key
          value = lookup(env.value, "value", null)

          dynamic "value_source" {
            for_each = try([env.value.valueFrom.secretKeyRef], [])
            content {
              secret_key_ref {
                secret  = value_source.value.name
                version = value_source.value.key
              }
            }
          }
        }
      }
    }
  }

  depends_on = [
    google_project_service.api,
    google_secret_manager_secret_iam_member.reader,
    google_secret_manager_secret_version.redis_url,
  ]

  lifecycle {
    ignore_changes = [client, client_version] # deploy.sh writes them
  }
}

# Asks every target for one token and moves the batches on, from each region.
resource "google_cloud_scheduler_job" "probe" {
  for_each = toset(var.regions)

  name             = "${var.name}-probe"
  region           = each.value
  schedule         = "*/5 * * * *"
  attempt_deadline = "300s"

  http_target {
    http_method = "POST"
    uri         = google_cloud_run_v2_service.service["scheduled/${each.value}"].uri

    oidc_token {
      service_account_email = google_service_account.caller["scheduler"].email
      audience              = google_cloud_run_v2_service.service["scheduled/${each.value}"].uri
    }
  }
}
