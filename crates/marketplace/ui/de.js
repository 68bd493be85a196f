/** German phrases. */
export default {
  yes: 'Ja', no: 'Nein', back: 'Zurück', cancel: 'Abbrechen', close: 'Schließen', continue: 'Weiter', details: 'Einzelheiten', install: 'Installieren',
  keep: 'Behalten', more: 'Mehr anzeigen', open: 'Öffnen', refresh: 'Aktualisieren', remove: 'Entfernen', retry: 'Noch einmal versuchen', loading: 'Wird geladen …',
  'cancel-run': 'Abbrechen', version: 'Version {version}', 'may-not': 'Ihre Rolle erlaubt das nicht. Fragen Sie die Verwaltung Ihrer Firma.',

  'nav.label': 'Integrationen', 'nav.catalogue': 'Katalog', 'nav.installed': 'Installiert', 'nav.connections': 'Verbindungen',

  'catalogue.title': 'Verbinden Sie Ihre Werkzeuge', 'catalogue.lead': 'Wählen Sie eine Integration und richten Sie sie in wenigen Minuten ein.',
  'catalogue.search': 'Integrationen suchen', 'catalogue.categories': 'Kategorien', 'catalogue.all': 'Alle',
  'catalogue.count': { one: '{n} Integration', other: '{n} Integrationen' },
  'catalogue.none': 'Nichts gefunden', 'catalogue.none-hint': 'Versuchen Sie ein anderes Wort oder eine andere Kategorie.',
  'catalogue.empty': 'Noch keine Integrationen', 'catalogue.empty-hint': 'Sobald eine angeboten wird, erscheint sie hier.',

  'integration.about': 'Was sie tut', 'integration.needs': 'Was sie braucht', 'integration.needs-nothing': 'Nur ein paar Einstellungen.',
  'integration.account': 'Ein Konto bei {title}', 'integration.runs': 'Wann sie läuft', 'integration.again': 'Noch einmal installieren',

  'install.title': '{title} einrichten', 'install.steps': 'Schritte', 'install.connect': 'Verbinden', 'install.configure': 'Einstellen', 'install.review': 'Prüfen',
  'install.connect-hint': 'Zugangsdaten werden verschlüsselt gespeichert und nie wieder angezeigt.', 'install.then': 'Danach läuft:',
  'install.now': '{title} installieren', 'install.done': '{title} ist installiert.',

  'installed.title': 'Installierte Integrationen', 'installed.lead': 'Was für Ihre Firma läuft.', 'installed.since': 'Installiert', 'installed.next': 'läuft wieder',
  'installed.empty': 'Noch ist nichts installiert', 'installed.empty-hint': 'Wählen Sie zum Anfang eine Integration aus dem Katalog.',

  'installation.parts': 'Teile dieser Installation', 'installation.activity': 'Verlauf', 'installation.settings': 'Einstellungen',
  'installation.run': 'Jetzt ausführen', 'installation.run-named': '„{flow}“ jetzt ausführen', 'installation.started': '„{flow}“ wurde gestartet.',
  'installation.pause': 'Anhalten', 'installation.resume': 'Fortsetzen', 'installation.activate': 'Einschalten', 'installation.paused': '{title} ist angehalten.', 'installation.resumed': '{title} läuft wieder.',
  'installation.is-paused': 'Angehalten: Es startet nichts, bis Sie fortsetzen. Was inzwischen geschieht, wird nicht nachgeholt.',
  'installation.newer': 'Version {version} ist verfügbar', 'installation.check-connections': 'Verbindungen ansehen',
  'installation.schedules': 'Zeitpläne', 'installation.next': 'nächstes Mal',

  'settings.title': 'Einstellungen', 'settings.save': 'Änderungen speichern', 'settings.saved': 'Die Einstellungen sind gespeichert.', 'settings.reset': 'Änderungen verwerfen',
  'settings.none': 'Es gibt nichts einzustellen.', 'settings.connection': 'Konto bei {title}', 'settings.connection-missing': 'Verbindung wählen',
  'settings.conflict': 'Ihre Eingaben stehen noch hier. Es wurde nichts gespeichert.', 'settings.theirs': 'Jetzige Einstellungen zeigen', 'settings.mine': 'Meine darüber speichern',

  uninstall: 'Deinstallieren', 'uninstall.title': 'Deinstallieren', 'uninstall.hint': 'Hält diese Integration an und entfernt ihre Einstellungen.', 'uninstall.ask': '{title} deinstallieren?',
  'uninstall.stops': 'Das hört auf', 'uninstall.stays': 'Das bleibt', 'uninstall.forgets': 'Ihre Einstellungen, Geheimnisse und ihr Gedächtnis werden entfernt.',
  'uninstall.connections': 'Ihre Verbindungen, für andere Integrationen.', 'uninstall.history': 'Was sie schon getan hat, hier und beim Anbieter.', 'uninstall.done': '{title} ist deinstalliert.',

  'connections.title': 'Verbindungen', 'connections.lead': 'Die Konten, die Ihre Integrationen benutzen.',
  'connections.empty': 'Noch keine Verbindungen', 'connections.empty-hint': 'Sie entstehen, wenn Sie eine Integration installieren.',
  'connection.connect': 'Verbinden', 'connection.reconnect': 'Neu verbinden', 'connection.test': 'Testen', 'connection.another': 'Anderes Konto benutzen',
  'connection.needed': 'Wählen oder erstellen Sie eine Verbindung', 'connection.works': 'Die Verbindung funktioniert ({took}).', 'connection.works-not': 'Die Verbindung funktioniert nicht.',
  'connection.updated': 'Zugangsdaten von', 'connection.used': 'Benutzt von', 'connection.unused': 'Unbenutzt',
  'connection.remove': '{name} entfernen?', 'connection.removed': '{name} ist entfernt.', 'connection.remove-hint': 'Die gespeicherten Zugangsdaten werden gelöscht. Beim Anbieter bleibt der Schlüssel gültig, bis Sie ihn dort widerrufen.',
  'connection.in-use': 'Eine Installation benutzt diese Verbindung. Geben Sie ihr erst eine andere oder deinstallieren Sie sie.',

  'field.api_key': 'API-Schlüssel', 'field.username': 'Benutzername', 'field.password': 'Passwort', 'field.base_url': 'Adresse', 'field.base_url-hint': 'Wo Ihr Konto liegt, beginnend mit https://',
  'field.label': 'Name', 'field.label-hint': 'Woran Sie sie erkennen, etwa „Vertrieb“.', 'field.scheme': 'Art der Anmeldung',
  'scheme.none': 'Ohne Zugangsdaten', 'scheme.api-key-header': 'API-Schlüssel', 'scheme.api-key-query': 'API-Schlüssel in der Adresse', 'scheme.basic': 'Benutzername und Passwort',

  'form.optional': 'freiwillig', 'form.required': 'Das wird gebraucht', 'form.choose': 'Bitte wählen …', 'form.none': 'Keine Angabe', 'form.use': 'Benutzen',
  'form.example': 'Zum Beispiel: {value}', 'form.add': 'Hinzufügen', 'form.remove': 'Entfernen', 'form.remove-named': '{label} entfernen',
  'form.key': 'Name', 'form.value': 'Wert', 'form.more': 'Mehr …', 'form.no-choices': 'Nichts gefunden.', 'form.by-hand': 'Sie können die Kennung auch von Hand eingeben.',
  'form.as-typed': 'Keine der gefundenen Möglichkeiten; es gilt, was Sie eingegeben haben.', 'form.secret-stored': 'Ein Wert ist gespeichert. Lassen Sie das Feld leer, um ihn zu behalten.',
  'form.json': 'Für diese Einstellung gibt es noch kein Formular: Schreiben Sie sie als JSON.', 'form.json-wrong': 'Das ist kein JSON: {error}',
  'form.problem': { one: 'Eine Angabe braucht einen Blick', other: '{n} Angaben brauchen einen Blick' },

  'executions.title': 'Ausführungen', 'executions.status': 'Stand', 'executions.flow': 'Ablauf', 'executions.started': 'Begonnen', 'executions.duration': 'Dauer', 'executions.attempt': 'Versuch',
  'executions.actions': 'Aktionen', 'executions.of': '{n} von {most}', 'executions.next': 'Nächster Versuch {time}.', 'executions.queue': 'In der Schlange', 'executions.setup': 'Vorbereitung', 'executions.run': 'Lauf',
  'executions.again': 'Noch einmal', 'executions.started-again': 'Sie wurde neu gestartet.', 'executions.cause': 'Gemeldet wurde:', 'executions.repeats': 'Wiederholt eine frühere Ausführung.', 'executions.id': 'Kennung für Rückfragen',
  'executions.empty': 'Noch ist nichts gelaufen', 'executions.empty-hint': 'Sobald etwas startet, sehen Sie hier, wie es ausging.',
  'log.title': 'Was geschah', 'log.empty': 'Es wurde nichts vermerkt.', 'log.waiting': 'Noch nichts vermerkt.', 'log.cut': 'Die ersten {n} Zeilen.', 'level.warn': 'Hinweis', 'level.error': 'Fehler',
  'cancel.cancelled': 'Sie ist abgebrochen.', 'cancel.requested': 'Sie soll aufhören.', 'cancel.finished': 'Sie war schon zu Ende.',

  'state.draft': 'In Einrichtung', 'state.active': 'Aktiv', 'state.paused': 'Angehalten', 'state.needs-attention': 'Braucht Aufmerksamkeit', 'state.removing': 'Wird entfernt', 'state.installed': 'Installiert',
  'status.queued': 'In der Schlange', 'status.running': 'Läuft', 'status.waiting': 'Wartet', 'status.cancelling': 'Hört auf', 'status.succeeded': 'Fertig', 'status.failed': 'Fehlgeschlagen', 'status.cancelled': 'Abgebrochen', 'status.expired': 'Abgelaufen',
  'health.unknown': 'Nicht getestet', 'health.connected': 'Verbunden', 'health.degraded': 'Hat Schwierigkeiten', 'health.needs-reconnect': 'Neu verbinden nötig',
  'trigger.event': 'durch ein Ereignis', 'trigger.schedule': 'nach Zeitplan', 'trigger.webhook': 'durch den Anbieter', 'trigger.call': 'durch eine Person', 'trigger.follow-up': 'nach einem anderen Ablauf',
  'trigger.on': 'wenn {event} geschieht', 'trigger.by-call': 'wenn jemand ihn startet',
  'cron.seconds': { one: 'jede Sekunde', other: 'alle {n} Sekunden' }, 'cron.minutes': { one: 'jede Minute', other: 'alle {n} Minuten' }, 'cron.hours': { one: 'jede Stunde', other: 'alle {n} Stunden' }, 'cron.daily': 'jeden Tag um {time} ({zone})',

  'problem.title': 'Das hat nicht geklappt', 'problem.code': 'Code: {code}', 'problem.retry': 'Ein neuer Versuch lohnt sich {time}.', 'problem.instance': 'Vorgang: {instance}',
  'error.offline': 'Der Server ist nicht erreichbar. Prüfen Sie Ihr Netz und versuchen Sie es noch einmal.', 'error.slow': 'Der Server antwortet nicht rechtzeitig. Versuchen Sie es gleich noch einmal.', 'error.unreadable': 'Die Antwort des Servers ist nicht lesbar. Versuchen Sie es gleich noch einmal.',
  'error.input-invalid': 'Manche Eingaben passen nicht.', 'error.config-invalid': 'Manche Einstellungen passen nicht.', 'error.body-too-large': 'Das ist mehr, als auf einmal gesendet werden kann.',
  'error.session-missing': 'Sie sind nicht angemeldet. Melden Sie sich an und versuchen Sie es noch einmal.', 'error.session-expired': 'Ihre Sitzung ist zu Ende. Melden Sie sich neu an.', 'error.capability-missing': 'Ihre Rolle erlaubt das nicht. Fragen Sie die Verwaltung Ihrer Firma.',
  'error.origin-refused': 'Diese Seite darf das nicht. Laden Sie sie neu und versuchen Sie es noch einmal.', 'error.not-found': 'Das gibt es nicht oder nicht mehr.', 'error.gone': 'Das ist zu alt, um noch da zu sein.',
  'error.conflict': 'Das passt nicht zum jetzigen Stand. Sehen Sie noch einmal hin.', 'error.revision-stale': 'Inzwischen hat jemand anderes etwas geändert.',
  'error.rate-limited': 'Zu viel auf einmal. Nach einer Pause geht es weiter.', 'error.target-unavailable': 'Der Dienst ist zurzeit nicht verfügbar.', 'error.target-saturated': 'Der Dienst ist zurzeit ausgelastet.',
  'error.shutting-down': 'Der Server startet gerade neu. Versuchen Sie es gleich noch einmal.', 'error.deadline-exceeded': 'Es dauerte zu lange und wurde beendet.', 'error.outcome-unknown': 'Niemand weiß, wie es ausging. Sehen Sie beim Anbieter nach.', 'error.cancelled': 'Es wurde abgebrochen.',
  'error.credentials-refused': 'Der Anbieter lehnt die Zugangsdaten ab. Verbinden Sie das Konto neu.', 'error.connection-missing': 'Eine nötige Verbindung fehlt.', 'error.secret-unreadable': 'Die gespeicherten Zugangsdaten sind nicht lesbar. Verbinden Sie das Konto neu.',
  'error.provider-error': 'Der Anbieter meldet einen Fehler.', 'error.provider-rejected': 'Der Anbieter lehnt die Anfrage ab.', 'error.provider-unreachable': 'Der Anbieter ist nicht erreichbar.',
  'error.response-too-large': 'Die Antwort des Anbieters ist zu groß.', 'error.egress-refused': 'Diese Adresse darf nicht aufgerufen werden.',
  'error.flow-failed': 'Die Integration meldet einen Fehler.', 'error.flow-panicked': 'Die Integration ist unerwartet gescheitert.', 'error.script-failed': 'Die Integration meldet einen Fehler.', 'error.script-crashed': 'Die Integration ist unerwartet gescheitert.',
  'error.script-not-started': 'Die Integration konnte nicht gestartet werden.', 'error.script-output-invalid': 'Das Ergebnis der Integration ist nicht brauchbar.', 'error.attempts-exhausted': 'Alle Versuche sind fehlgeschlagen.', 'error.expired': 'Es konnte nicht rechtzeitig laufen.',
  'error.version-missing': 'Die installierte Version ist zurzeit nicht verfügbar.', 'error.isolation-unavailable': 'Sie kann hier nicht sicher ausgeführt werden.', 'error.store-unavailable': 'Der Server erreicht seine Daten nicht. Versuchen Sie es gleich noch einmal.',
  'error.no-connection': 'Wählen Sie zuerst eine Verbindung.', 'error.internal': 'Bei uns ist etwas schiefgegangen.',
};
