// firsttoken on Azure: one function app a region, behind one Front Door.
//
// Calls are answered in whichever region Front Door picks. What the regions share (jobs, breakers, limits, caches) lies in
// the storage account of the first one; each has its own queue, so that jobs wake a worker where they were accepted.
targetScope = 'subscription'

@description('The azd environment: part of the names of all resources.')
@minLength(1)
@maxLength(32)
param environmentName string

@description('At least two regions that offer Flex Consumption; the first one holds what they share.')
@minLength(2)
@maxLength(4)
param locations array

@description('FIRSTTOKEN_KEYS: who may call, as tenant:sha256hex pairs. Digests, not keys: they are no secret.')
@minLength(1)
param apiKeys string

@description('Further app settings, for example FIRSTTOKEN_UPSTREAM_URL. Empty ones are left out.')
param settings object = {}

@description('App settings that are secrets, by name. They are kept in the key vault; empty ones are left out.')
@secure()
param secrets object = {}

@description('Where jobs wait: a queue in the storage account of each region, or one Service Bus queue for all.')
@allowed(['storage_queue', 'service_bus'])
param queueKind string = 'storage_queue'

@description('Redundancy of the storage accounts. Standard_GZRS also survives the loss of a region, after a failover.')
@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS', 'Standard_RAGZRS'])
param storageSku string = 'Standard_ZRS'

@description('Calls that one instance answers at once. The default of Python apps is 1, which starts an instance a stream.')
@minValue(1)
@maxValue(1000)
param httpConcurrency int = 32

@description('Instances that are kept warm in each region for calls; they are paid for while idle.')
@minValue(0)
@maxValue(20)
param alwaysReadyInstances int = 1

@description('The most instances in each region. Azure takes no less than 40: it protects no rate limit.')
@minValue(40)
@maxValue(1000)
param maximumInstanceCount int = 100

@allowed([512, 2048, 4096])
param instanceMemoryMB int = 2048

@minValue(30)
@maxValue(730)
param logRetentionDays int = 30

@description('Who hears of alerts. Without an address they are only shown in the portal.')
param alertEmail string = ''

@description('Milliseconds: a longer 99th percentile of whole calls, streams included, is an alert.')
param slowCallMilliseconds int = 120000

var tags = { 'azd-env-name': environmentName }
var token = toLower(uniqueString(subscription().id, environmentName, locations[0]))
var queueName = 'firsttoken-jobs'
var deadQueueName = 'firsttoken-jobs-dead'
var tableName = 'firsttoken'
var containerName = 'firsttoken'
var packageContainerName = 'app-package'
var usesBus = queueKind == 'service_bus'

// What is left empty must not become a setting: an empty FIRSTTOKEN_* variable is a value, too.
var givenSettings = toObject(filter(items(settings), setting => !empty(setting.value)), setting => setting.key, setting => setting.value)
var secretSettings = map(filter(items(secrets), secret => !empty(secret.value)), secret => secret.key)

resource group 'Microsoft.Resources/resourceGroups@2022-09-01' = {
  name: 'rg-${environmentName}'
  location: locations[0]
  tags: tags
}

module identities 'identity.bicep' = [for (location, i) in locations: {
  name: 'identity-${i}'
  scope: group
  params: {
    name: 'id-${token}-${i}'
    location: location
    tags: tags
  }
}]

module monitoring 'monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    name: token
    location: locations[0]
    tags: tags
    retentionDays: logRetentionDays
    publisherIds: [for i in range(0, length(locations)): identities[i].outputs.principalId]
  }
}

module accounts 'storage.bicep' = [for (location, i) in locations: {
  name: 'storage-${i}'
  scope: group
  params: {
    name: 'st${token}${i}'
    location: location
    tags: tags
    sku: storageSku
    queueName: queueName
    tableName: tableName
    containerName: containerName
    packageContainerName: packageContainerName
    workspaceId: monitoring.outputs.workspaceId
  }
}]

// The Functions host, the queue and the deployment package of a region.
module hostRoles 'storage-roles.bicep' = [for (location, i) in locations: {
  name: 'storage-roles-host-${i}'
  scope: group
  params: {
    accountName: accounts[i].outputs.name
    principalId: identities[i].outputs.principalId
    services: ['blob', 'queue', 'table']
  }
}]

// What the other regions share with the first one.
module sharedRoles 'storage-roles.bicep' = [for (location, i) in skip(locations, 1): {
  name: 'storage-roles-shared-${i + 1}'
  scope: group
  params: {
    accountName: accounts[0].outputs.name
    principalId: identities[i + 1].outputs.principalId
    services: ['blob', 'table']
  }
}]

module vault 'vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    name: 'kv-${token}'
    location: locations[0]
    tags: tags
    secrets: secrets
    readerIds: [for i in range(0, length(locations)): identities[i].outputs.principalId]
  }
}

module bus 'bus.bicep' = if (usesBus) {
  name: 'bus'
  scope: group
  params: {
    name: 'sb-${token}'
    location: locations[0]
    tags: tags
    queueName: queueName
    deadQueueName: deadQueueName
    principalIds: [for i in range(0, length(locations)): identities[i].outputs.principalId]
  }
}

module apps 'app.bicep' = [for (location, i) in locations: {
  name: 'app-${i}'
  scope: group
  dependsOn: [hostRoles, sharedRoles]
  params: {
    name: 'func-${token}-${i}'
    location: location
    tags: tags
    serviceName: 'chat${i}'
    identityId: identities[i].outputs.id
    clientId: identities[i].outputs.clientId
    accountName: accounts[i].outputs.name
    sharedAccountName: accounts[0].outputs.name
    packageContainerName: packageContainerName
    tableName: tableName
    containerName: containerName
    queueName: queueName
    deadQueueName: deadQueueName
    busEndpoint: usesBus ? bus!.outputs.endpoint : ''
    insightsConnection: monitoring.outputs.connectionString
    vaultName: vault.outputs.name
    secretSettings: secretSettings
    settings: union({ FIRSTTOKEN_KEYS: apiKeys }, givenSettings)
    httpConcurrency: httpConcurrency
    alwaysReadyInstances: alwaysReadyInstances
    maximumInstanceCount: maximumInstanceCount
    instanceMemoryMB: instanceMemoryMB
  }
}]

module frontDoor 'frontdoor.bicep' = {
  name: 'frontdoor'
  scope: group
  params: {
    name: token
    tags: tags
    hostNames: [for i in range(0, length(locations)): apps[i].outputs.hostName]
  }
}

module alerts 'alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: locations[0]
    tags: tags
    email: alertEmail
    workspaceId: monitoring.outputs.workspaceId
    frontDoorId: frontDoor.outputs.profileId
    queueName: queueName
    deadQueueName: deadQueueName
    busId: usesBus ? bus!.outputs.id : ''
    slowCallMilliseconds: slowCallMilliseconds
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output AZURE_KEY_VAULT_NAME string = vault.outputs.name
output FIRSTTOKEN_ENDPOINT string = 'https://${frontDoor.outputs.hostName}'
output REGION_ENDPOINTS array = [for i in range(0, length(locations)): 'https://${apps[i].outputs.hostName}']
