# One account for each service, and one for each of those who may call a private service.

locals {
  roles = toset([for service in local.services : service.role])

  # A service reads the secrets that service.yaml gives it, and no others.
  secrets = merge([
    for service in local.services : {
      for env in service.container.env : "${service.role}/${env.valueFrom.secretKeyRef.name}" => {
        role   = service.role
        secret = env.valueFrom.secretKeyRef.name
      } if can(env.valueFrom)
    } if service.region == var.regions[0]
  ]...)

  callers = { pubsub = "recover", scheduler = "scheduled" }
  calls = merge([
    for caller, role in local.callers : {
      for region in var.regions : "${caller}/${region}" => { caller = caller, service = "${role}/${region}" }
    }
  ]...)

  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

resource "google_service_account" "service" {
  for_each = local.roles

  account_id   = "${var.name}-${each.value}"
  display_name = "${var.name}: ${each.value}"
}

resource "google_service_account" "caller" {
  for_each = local.callers

  account_id   = "${var.name}-${each.key}"
  display_name = "${var.name}: calls ${each.value}"
}

resource "google_secret_manager_secret_iam_member" "reader" {
  for_each = local.secrets

  secret_id = each.value.secret
  role      = "roles/secretmanager.secretAccessor"
  member    = google_service_account.service[each.value.role].member

  depends_on = [google_secret_manager_secret.redis_url]
}

resource "google_cloud_run_v2_service_iam_member" "caller" {
  for_each = local.calls

  name     = google_cloud_run_v2_service.service[each.value.service].name
  location = google_cloud_run_v2_service.service[each.value.service].location
  role     = "roles/run.invoker"
  member   = google_service_account.caller[each.value.caller].member
}

# Pub/Sub signs its pushes as the account that may call `recover`.
resource "google_service_account_iam_member" "pubsub_signs" {
  service_account_id = google_service_account.caller["pubsub"].name
  role               = "roles/iam.serviceAccountTokenCreator"
  member             = local.pubsub_agent
}

resource "google_pubsub_topic_iam_member" "jobs_publisher" {
  for_each = local.roles

  topic  = google_pubsub_topic.jobs.name
  role   = "roles/pubsub.publisher"
  member = google_service_account.service[each.value].member
}

# Pub/Sub itself moves what cannot be delivered; `recover` buries what it cannot answer.
resource "google_pubsub_topic_iam_member" "dead_publisher" {
  for_each = {
    pubsub  = local.pubsub_agent
    recover = google_service_account.service["recover"].member
  }

  topic  = google_pubsub_topic.dead.name
  role   = "roles/pubsub.publisher"
  member = each.value
}

resource "google_pubsub_subscription_iam_member" "pubsub_takes" {
  subscription = google_pubsub_subscription.jobs.name
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

resource "google_storage_bucket_iam_member" "objects" {
  for_each = local.roles

  bucket = google_storage_bucket.objects.name
  role   = "roles/storage.objectUser"
  member = google_service_account.service[each.value].member
}

resource "google_project_iam_member" "vertex" {
  for_each = var.vertex ? local.roles : []

  project = var.project
  role    = "roles/aiplatform.user"
  member  = google_service_account.service[each.value].member
}
