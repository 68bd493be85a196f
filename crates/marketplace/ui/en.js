/** English phrases, the complete set: other languages may leave some out. Hosts override them by key. */
export default {
  yes: 'Yes', no: 'No', back: 'Back', cancel: 'Cancel', close: 'Close', continue: 'Continue', details: 'Details', install: 'Install',
  keep: 'Keep it', more: 'Show more', open: 'Open', refresh: 'Refresh', remove: 'Remove', retry: 'Try again', loading: 'Loading…',
  'cancel-run': 'Cancel', version: 'Version {version}', 'may-not': 'Your role does not allow this. Ask an administrator of your company.',

  'nav.label': 'Integrations', 'nav.catalogue': 'Catalogue', 'nav.installed': 'Installed', 'nav.connections': 'Connections',

  'catalogue.title': 'Connect your tools', 'catalogue.lead': 'Choose an integration and set it up in a few minutes.',
  'catalogue.search': 'Search integrations', 'catalogue.categories': 'Categories', 'catalogue.all': 'All',
  'catalogue.count': { one: '{n} integration', other: '{n} integrations' },
  'catalogue.none': 'Nothing fits', 'catalogue.none-hint': 'Try another word or another category.',
  'catalogue.empty': 'No integrations yet', 'catalogue.empty-hint': 'As soon as one is offered, it appears here.',

  'integration.about': 'What it does', 'integration.needs': 'What it needs', 'integration.needs-nothing': 'Nothing but a few settings.',
  'integration.account': 'An account at {title}', 'integration.runs': 'When it runs', 'integration.again': 'Install again',

  'install.title': 'Set up {title}', 'install.steps': 'Steps', 'install.connect': 'Connect', 'install.configure': 'Configure', 'install.review': 'Review',
  'install.connect-hint': 'Credentials are stored encrypted and never shown again.', 'install.then': 'Once installed, this runs:',
  'install.now': 'Install {title}', 'install.done': '{title} is installed.',

  'installed.title': 'Installed integrations', 'installed.lead': 'What runs for your company.', 'installed.since': 'Installed', 'installed.next': 'runs next',
  'installed.empty': 'Nothing is installed yet', 'installed.empty-hint': 'Choose an integration from the catalogue to get started.',

  'installation.parts': 'Parts of this installation', 'installation.activity': 'Activity', 'installation.settings': 'Settings',
  'installation.run': 'Run now', 'installation.run-named': 'Run “{flow}” now', 'installation.started': '“{flow}” has been started.',
  'installation.pause': 'Pause', 'installation.resume': 'Resume', 'installation.activate': 'Activate', 'installation.paused': '{title} is paused.', 'installation.resumed': '{title} runs again.',
  'installation.is-paused': 'Paused: nothing starts until you resume it. What happens in the meantime is not made up for.',
  'installation.newer': 'version {version} is available', 'installation.check-connections': 'Check your connections',
  'installation.schedules': 'Schedules', 'installation.next': 'next',

  'settings.title': 'Settings', 'settings.save': 'Save changes', 'settings.saved': 'The settings are saved.', 'settings.reset': 'Discard changes',
  'settings.none': 'There is nothing to set.', 'settings.connection': '{title} account', 'settings.connection-missing': 'Choose a connection',
  'settings.conflict': 'What you entered is still here. Nothing has been saved.', 'settings.theirs': 'Show the present settings', 'settings.mine': 'Save mine over them',

  uninstall: 'Uninstall', 'uninstall.title': 'Uninstall', 'uninstall.hint': 'Stops this integration and removes its settings.', 'uninstall.ask': 'Uninstall {title}?',
  'uninstall.stops': 'This stops', 'uninstall.stays': 'This stays', 'uninstall.forgets': 'Its settings, secrets and what it remembers are removed.',
  'uninstall.connections': 'Your connections, for other integrations to use.', 'uninstall.history': 'Whatever it has already done, here and at the provider.', 'uninstall.done': '{title} is uninstalled.',

  'connections.title': 'Connections', 'connections.lead': 'The accounts that your integrations use.',
  'connections.empty': 'No connections yet', 'connections.empty-hint': 'You make them while you install an integration.',
  'connection.connect': 'Connect', 'connection.reconnect': 'Reconnect', 'connection.test': 'Test', 'connection.another': 'Use another account',
  'connection.needed': 'Choose or make a connection', 'connection.works': 'The connection works ({took}).', 'connection.works-not': 'The connection does not work.',
  'connection.updated': 'credentials from', 'connection.used': 'Used by', 'connection.unused': 'Not in use',
  'connection.remove': 'Remove {name}?', 'connection.removed': '{name} is removed.', 'connection.remove-hint': 'The stored credentials are deleted. At the provider, the key stays valid until you revoke it there.',
  'connection.in-use': 'An installation uses this connection. Give that one another connection first, or uninstall it.',

  'field.api_key': 'API key', 'field.username': 'User name', 'field.password': 'Password', 'field.base_url': 'Address', 'field.base_url-hint': 'Where your account lives, starting with https://',
  'field.label': 'Name', 'field.label-hint': 'How you want to recognise it, such as “Sales team”.', 'field.scheme': 'Way to sign in',
  'scheme.none': 'No credentials', 'scheme.api-key-header': 'API key', 'scheme.api-key-query': 'API key in the address', 'scheme.basic': 'User name and password',

  'form.optional': 'optional', 'form.required': 'This is needed', 'form.choose': 'Choose…', 'form.none': 'None', 'form.use': 'Use this',
  'form.example': 'For example: {value}', 'form.item': '{label} {n}', 'form.add': 'Add', 'form.remove': 'Remove', 'form.remove-named': 'Remove {label}',
  'form.key': 'Name', 'form.value': 'Value', 'form.more': 'More…', 'form.no-choices': 'Nothing found.', 'form.by-hand': 'You can also type the id by hand.',
  'form.as-typed': 'Not one of the choices found; it is used as you typed it.', 'form.secret-stored': 'A value is stored. Leave this empty to keep it.', 'form.secret-hidden': '••••••••',
  'form.json': 'This setting has a shape for which there is no form yet: write it as JSON.', 'form.json-wrong': 'This is not JSON: {error}',
  'form.problem': { one: 'One thing needs a look', other: '{n} things need a look' },

  'executions.title': 'Executions', 'executions.status': 'Status', 'executions.flow': 'Flow', 'executions.started': 'Started', 'executions.duration': 'Duration', 'executions.attempt': 'Attempt',
  'executions.actions': 'Actions', 'executions.of': '{n} of {most}', 'executions.next': 'Next attempt {time}.', 'executions.queue': 'In the queue', 'executions.setup': 'Preparing', 'executions.run': 'Running',
  'executions.again': 'Run again', 'executions.started-again': 'It has been started again.', 'executions.cause': 'What was reported:', 'executions.repeats': 'Repeats an earlier execution.', 'executions.id': 'Support code',
  'executions.empty': 'Nothing has run yet', 'executions.empty-hint': 'As soon as something starts it, you see here how it went.',
  'log.title': 'What happened', 'log.empty': 'Nothing was noted.', 'log.waiting': 'Nothing noted yet.', 'log.cut': 'The first {n} lines.', 'level.warn': 'Note', 'level.error': 'Error',
  'cancel.cancelled': 'It is cancelled.', 'cancel.requested': 'It has been told to stop.', 'cancel.finished': 'It had already ended.',

  'state.draft': 'Setting up', 'state.active': 'Active', 'state.paused': 'Paused', 'state.needs-attention': 'Needs attention', 'state.removing': 'Removing', 'state.installed': 'Installed',
  'status.queued': 'Queued', 'status.running': 'Running', 'status.waiting': 'Waiting', 'status.cancelling': 'Stopping', 'status.succeeded': 'Done', 'status.failed': 'Failed', 'status.cancelled': 'Cancelled', 'status.expired': 'Expired',
  'health.unknown': 'Not tested', 'health.connected': 'Connected', 'health.degraded': 'Has trouble', 'health.needs-reconnect': 'Reconnect needed',
  'trigger.event': 'by an event', 'trigger.schedule': 'on a schedule', 'trigger.webhook': 'by the provider', 'trigger.call': 'by a person', 'trigger.follow-up': 'after another flow',
  'trigger.on': 'when {event} happens', 'trigger.by-call': 'when somebody starts it',
  'cron.seconds': { one: 'every second', other: 'every {n} seconds' }, 'cron.minutes': { one: 'every minute', other: 'every {n} minutes' }, 'cron.hours': { one: 'every hour', other: 'every {n} hours' }, 'cron.daily': 'every day at {time} ({zone})',

  'problem.title': 'This did not work', 'problem.code': 'Code: {code}', 'problem.retry': 'Worth another try {time}.', 'problem.instance': 'Reference: {instance}',
  'error.offline': 'The server cannot be reached. Check your network and try again.', 'error.slow': 'The server takes too long to answer. Try again in a moment.', 'error.unreadable': 'The server’s answer cannot be read. Try again in a moment.',
  'error.input-invalid': 'Some of what was entered does not fit.', 'error.config-invalid': 'Some settings do not fit.', 'error.body-too-large': 'That is more than can be sent at once.',
  'error.session-missing': 'You are not signed in. Sign in and try again.', 'error.session-expired': 'Your session has ended. Sign in again.', 'error.capability-missing': 'Your role does not allow this. Ask an administrator of your company.',
  'error.origin-refused': 'This page may not do that. Reload it and try again.', 'error.not-found': 'This does not exist, or not any more.', 'error.gone': 'This is too old to be kept.',
  'error.conflict': 'This does not fit the present state. Look again and decide again.', 'error.revision-stale': 'Somebody else has changed this in the meantime.',
  'error.rate-limited': 'Too much at once. It goes on after a pause.', 'error.target-unavailable': 'The service is not available at the moment.', 'error.target-saturated': 'The service has no capacity to spare at the moment.',
  'error.shutting-down': 'The server is restarting. Try again in a moment.', 'error.deadline-exceeded': 'It took too long and was stopped.', 'error.outcome-unknown': 'Nobody can tell how it ended. Check at the provider.', 'error.cancelled': 'It was cancelled.',
  'error.credentials-refused': 'The provider refuses the credentials. Reconnect the account.', 'error.connection-missing': 'A connection that this needs is missing.', 'error.secret-unreadable': 'The stored credentials cannot be read. Reconnect the account.',
  'error.provider-error': 'The provider answered with an error.', 'error.provider-rejected': 'The provider refused the request.', 'error.provider-unreachable': 'The provider cannot be reached.',
  'error.response-too-large': 'The provider’s answer is too large.', 'error.egress-refused': 'This address may not be called.',
  'error.flow-failed': 'The integration reported an error.', 'error.flow-panicked': 'The integration failed unexpectedly.', 'error.script-failed': 'The integration reported an error.', 'error.script-crashed': 'The integration failed unexpectedly.',
  'error.script-not-started': 'The integration could not be started.', 'error.script-output-invalid': 'The integration gave a result that cannot be used.', 'error.attempts-exhausted': 'All attempts failed.', 'error.expired': 'It could not run in time.',
  'error.version-missing': 'The installed version is not available at the moment.', 'error.isolation-unavailable': 'It cannot be run safely here.', 'error.store-unavailable': 'The server cannot reach its data. Try again in a moment.',
  'error.no-connection': 'Choose a connection first.', 'error.internal': 'Something went wrong on our side.',
};
