// What somebody should hear of: dead letters, jobs that wait too long, failed and slow calls, a region that is down.
param location string
param tags object
param email string
param workspaceId string
param frontDoorId string
param queueName string
param deadQueueName string

@description('The Service Bus namespace; empty where jobs wait in Storage queues.')
param busId string

param slowCallMilliseconds int

@description('Seconds. More than `jobs.max_delay`: a job that waits for its targets is no alert.')
param oldJobSeconds int = 900

var usesBus = !empty(busId)
var actions = [people.id]

var queries = [
  {
    name: 'dead-letters'
    description: 'A job was given up: firsttoken jobs dead shows why.'
    severity: 1
    window: 'PT5M'
    query: 'StorageQueueLogs | where OperationName == "PutMessage" and Uri contains "/${queueName}-poison/" | summarize Value = count()'
    threshold: 0
  }
  {
    name: 'queue-age'
    description: 'Jobs wait, and none was finished since.'
    severity: 2
    window: 'PT1H'
    query: 'let ops = StorageQueueLogs | where Uri contains "/${queueName}/"; let taken = toscalar(ops | where OperationName == "DeleteMessage" | summarize max(TimeGenerated)); ops | where OperationName == "PutMessage" and (isnull(taken) or TimeGenerated > taken) | summarize Oldest = min(TimeGenerated) | where isnotnull(Oldest) | project Value = datetime_diff("second", now(), Oldest)'
    threshold: oldJobSeconds
  }
  {
    name: 'slow-calls'
    description: 'The 99th percentile of whole calls, streams included.'
    severity: 3
    window: 'PT15M'
    query: 'AppRequests | where Name == "chat" | summarize Value = percentile(DurationMs, 99) | where isnotnull(Value)'
    threshold: slowCallMilliseconds
  }
]

var metrics = [
  {
    name: 'server-errors'
    description: 'More than 5 % of all answers are 5xx.'
    severity: 1
    scope: frontDoorId
    namespace: 'Microsoft.Cdn/profiles'
    metric: 'Percentage5XX'
    operator: 'GreaterThan'
    threshold: 5
    window: 'PT5M'
    dimensions: []
  }
  {
    name: 'region-down'
    description: 'Front Door sees a region that is not ready.'
    severity: 2
    scope: frontDoorId
    namespace: 'Microsoft.Cdn/profiles'
    metric: 'OriginHealthPercentage'
    operator: 'LessThan'
    threshold: 90
    window: 'PT5M'
    dimensions: []
  }
]

var busMetrics = [
  {
    name: 'bus-dead-letters'
    description: 'A job was given up: firsttoken jobs dead shows why.'
    severity: 1
    scope: busId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'ActiveMessages'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT5M'
    dimensions: [{ name: 'EntityName', operator: 'Include', values: [deadQueueName] }]
  }
  {
    name: 'bus-given-up'
    description: 'Service Bus gave a job up after maxDeliveryCount.'
    severity: 1
    scope: busId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'DeadletteredMessages'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT5M'
    dimensions: [{ name: 'EntityName', operator: 'Include', values: [queueName] }]
  }
  {
    name: 'bus-backlog'
    description: 'More jobs wait than the workers take.'
    severity: 2
    scope: busId
    namespace: 'Microsoft.ServiceBus/namespaces'
    metric: 'ActiveMessages'
    operator: 'GreaterThan'
    threshold: 100
    window: 'PT15M'
    dimensions: [{ name: 'EntityName', operator: 'Include', values: [queueName] }]
  }
]

resource people 'Microsoft.Insights/actionGroups@2023-01-01' = {
  name: 'firsttoken'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'firsttoken'
    enabled: true
    emailReceivers: empty(email) ? [] : [{ name: 'email', emailAddress: email, useCommonAlertSchema: true }]
  }
}

resource queryAlerts 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = [for alert in queries: {
  name: alert.name
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    description: alert.description
    severity: alert.severity
    enabled: true
    scopes: [workspaceId]
    evaluationFrequency: 'PT5M'
    windowSize: alert.window
    skipQueryValidation: true // the tables appear with their first row
    criteria: {
      allOf: [
        {
          query: alert.query
          timeAggregation: 'Maximum'
          metricMeasureColumn: 'Value'
          operator: 'GreaterThan'
          threshold: alert.threshold
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: { actionGroups: actions }
  }
}]

resource metricAlerts 'Microsoft.Insights/metricAlerts@2018-03-01' = [for alert in concat(metrics, usesBus ? busMetrics : []): {
  name: alert.name
  location: 'global'
  tags: tags
  properties: {
    description: alert.description
    severity: alert.severity
    enabled: true
    scopes: [alert.scope]
    evaluationFrequency: 'PT5M'
    windowSize: alert.window
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: alert.name
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: alert.namespace
          metricName: alert.metric
          timeAggregation: 'Average'
          operator: alert.operator
          threshold: alert.threshold
          dimensions: alert.dimensions
        }
      ]
    }
    actions: [for id in actions: { actionGroupId: id }]
  }
}]
