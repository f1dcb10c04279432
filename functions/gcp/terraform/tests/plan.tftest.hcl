# `terraform test` plans without an account: the provider is played.

mock_provider "google" {
  mock_data "google_project" {
    defaults = { number = "123456789012" }
  }
}

variables {
  project = "acme"
  image   = "europe-docker.pkg.dev/acme/firsttoken/functions:1"
  domain  = "llm.example.com"
}

run "two_regions" {
  command = plan

  assert {
    condition = toset(keys(google_cloud_run_v2_service.service)) == toset([
      "chat/europe-west1", "chat/europe-west4",
      "recover/europe-west1", "recover/europe-west4",
      "scheduled/europe-west1", "scheduled/europe-west4",
    ])
    error_message = "Every service runs in every region."
  }

  assert {
    condition = alltrue([
      for key, service in google_cloud_run_v2_service.service :
      service.scaling[0].min_instance_count == (startswith(key, "chat/") ? 1 : 0)
    ])
    error_message = "The health of a region needs an instance of chat there."
  }

  assert {
    condition = alltrue([
      for key, service in google_cloud_run_v2_service.service :
      service.invoker_iam_disabled == startswith(key, "chat/")
    ])
    error_message = "Only chat takes calls without a token of Google's."
  }

  assert {
    condition = [
      for probe in google_cloud_run_v2_service.service["chat/europe-west4"].template[0].containers[0].readiness_probe :
      probe.http_get[0].path
    ] == ["/readyz"]
    error_message = "The readiness probe asks /readyz."
  }

  assert {
    condition = one([
      for env in google_cloud_run_v2_service.service["chat/europe-west1"].template[0].containers[0].env :
      env.value_source[0].secret_key_ref[0].secret if env.name == "FIRSTTOKEN_STORE__URL"
    ]) == "firsttoken-redis-url"
    error_message = "Secrets stay in Secret Manager."
  }

  assert {
    condition     = length(google_compute_backend_service.chat.backend) == 2
    error_message = "The load balancer knows every region."
  }

  assert {
    condition = toset(keys(google_secret_manager_secret_iam_member.reader)) == toset([
      "chat/firsttoken-keys", "chat/firsttoken-redis-url", "chat/firsttoken-upstream-key",
      "recover/firsttoken-redis-url", "recover/firsttoken-upstream-key",
      "scheduled/firsttoken-redis-url", "scheduled/firsttoken-upstream-key",
    ])
    error_message = "A service reads the secrets that it is given, and no others."
  }

  assert {
    condition     = length(google_pubsub_topic.jobs.message_storage_policy) == 0
    error_message = "Without a residency messages may be kept anywhere."
  }

  assert {
    condition     = length(google_project_iam_member.vertex) == 0
    error_message = "Vertex AI is not granted unless asked for."
  }
}

run "memorystore_in_the_eu" {
  command = plan

  variables {
    residency   = "eu"
    memorystore = "STANDARD_SMALL"
    vertex      = true
    alert_email = "ops@example.com"
  }

  assert {
    condition     = google_memorystore_instance.store[0].location == "europe-west1"
    error_message = "The store stands in the first region."
  }

  assert {
    condition = alltrue([
      google_storage_bucket.objects.location == "EU",
      google_logging_project_bucket_config.services.location == "eu",
      google_pubsub_topic.jobs.message_storage_policy[0].allowed_persistence_regions == tolist(var.regions),
      google_pubsub_topic.dead.message_storage_policy[0].allowed_persistence_regions == tolist(var.regions),
    ])
    error_message = "Objects, logs and messages stay in the EU."
  }

  assert {
    condition     = length(google_project_iam_member.vertex) == 3
    error_message = "All three services call models."
  }
}

run "own_certificate" {
  command = plan

  variables {
    certificates = ["projects/acme/global/sslCertificates/own"]
  }

  assert {
    condition     = length(google_compute_managed_ssl_certificate.this) == 0
    error_message = "Own certificates take the place of Google's."
  }
}

run "one_region_is_too_few" {
  command = plan

  variables {
    regions = ["europe-west1"]
  }

  expect_failures = [var.regions]
}

run "same_region_twice_is_one" {
  command = plan

  variables {
    regions = ["europe-west1", "europe-west1"]
  }

  expect_failures = [var.regions]
}

run "region_outside_of_the_residency" {
  command = plan

  variables {
    regions   = ["europe-west1", "us-central1"]
    residency = "eu"
  }

  expect_failures = [var.residency]
}

run "london_is_not_in_the_eu" {
  command = plan

  variables {
    regions   = ["europe-west1", "europe-west2"]
    residency = "eu"
  }

  expect_failures = [var.residency]
}
