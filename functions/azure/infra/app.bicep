// The function app of one region, on a Flex Consumption plan of its own (a plan holds one app).
param name string
param location string
param tags object
param serviceName string
param identityId string
param clientId string
param accountName string
param sharedAccountName string
param packageContainerName string
param tableName string
param containerName string
param queueName string
param deadQueueName string

@description('The host name of the Service Bus namespace; empty where jobs wait in a Storage queue.')
param busEndpoint string

param insightsConnection string
param vaultName string

@description('Names of the app settings whose values are in the key vault.')
param secretSettings array

param settings object
param httpConcurrency int
param alwaysReadyInstances int
param maximumInstanceCount int
param instanceMemoryMB int

var storage = environment().suffixes.storage
var usesBus = !empty(busEndpoint)

var hostSettings = {
  AzureWebJobsStorage__accountName: accountName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: clientId
  AZURE_CLIENT_ID: clientId // the identity of the core's own clients
  APPLICATIONINSIGHTS_CONNECTION_STRING: insightsConnection
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${clientId};Authorization=AAD'
}

var coreSettings = {
  FIRSTTOKEN_STORE__KIND: 'tables'
  FIRSTTOKEN_STORE__TABLE: tableName
  FIRSTTOKEN_STORE__ACCOUNT_URL: 'https://${sharedAccountName}.table.${storage}'
  FIRSTTOKEN_OBJECTS__KIND: 'blob'
  FIRSTTOKEN_OBJECTS__CONTAINER: containerName
  FIRSTTOKEN_OBJECTS__ACCOUNT_URL: 'https://${sharedAccountName}.blob.${storage}'
}

// The trigger `recover` listens to the queue in AzureWebJobsStorage: it has to be the account of the setting.
var queueSettings = usesBus ? {
  FIRSTTOKEN_QUEUE__KIND: 'service_bus'
  FIRSTTOKEN_QUEUE__NAME: queueName
  FIRSTTOKEN_QUEUE__DEAD_NAME: deadQueueName
  FIRSTTOKEN_QUEUE__NAMESPACE: 'https://${busEndpoint}'
  ServiceBus__fullyQualifiedNamespace: busEndpoint
  ServiceBus__credential: 'managedidentity'
  ServiceBus__clientId: clientId
  'AzureWebJobs.recover.Disabled': 'true'
} : {
  FIRSTTOKEN_QUEUE__KIND: 'storage_queue'
  FIRSTTOKEN_QUEUE__NAME: queueName
  FIRSTTOKEN_QUEUE__ACCOUNT_URL: 'https://${accountName}.queue.${storage}'
  'AzureWebJobs.recover_bus.Disabled': 'true'
}

var vaultSettings = toObject(secretSettings, setting => setting, setting => '@Microsoft.KeyVault(VaultName=${vaultName};SecretName=${replace(setting, '_', '-')})')

resource plan 'Microsoft.Web/serverfarms@2025-05-01' = {
  name: 'plan-${name}'
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource app 'Microsoft.Web/sites@2025-05-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': serviceName })
  kind: 'functionapp,linux'
  identity: {
    type: 'UserAssigned'
    userAssignedIdentities: { '${identityId}': {} }
  }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    keyVaultReferenceIdentity: identityId
    siteConfig: {
      minTlsVersion: '1.2'
      ftpsState: 'Disabled'
    }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: 'https://${accountName}.blob.${storage}/${packageContainerName}'
          authentication: {
            type: 'UserAssignedIdentity'
            userAssignedIdentityResourceId: identityId
          }
        }
      }
      runtime: { name: 'python', version: '3.13' }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
        alwaysReady: alwaysReadyInstances > 0 ? [{ name: 'http', instanceCount: alwaysReadyInstances }] : []
        triggers: {
          http: { perInstanceConcurrency: httpConcurrency }
        }
      }
      siteUpdateStrategy: { type: 'RollingUpdate' } // 'Recreate' would cut off the streams that are under way
    }
  }
}

resource appSettings 'Microsoft.Web/sites/config@2025-05-01' = {
  parent: app
  name: 'appsettings'
  properties: union(settings, vaultSettings, coreSettings, queueSettings, hostSettings)
}

// No user name and password for deployments: azd and the portal sign in.
resource publishing 'Microsoft.Web/sites/basicPublishingCredentialsPolicies@2025-05-01' = [for protocol in ['ftp', 'scm']: {
  parent: app
  name: protocol
  properties: { allow: false }
}]

output hostName string = app.properties.defaultHostName
