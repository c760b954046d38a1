"""Keys and passwords that have no form of their own, and the examples, settings and code that look like them. None opens anything."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Callable

import pytest
from private_kinds import kinds

KEY = "aB3dE5gH7jK9mN1pQ3sT5vX7"
HEX = "5f0c9a7be4d1428860fe9b2c7a64d3e8"


@pytest.mark.parametrize(
    "text",
    [
        f"AZURE_OPENAI_API_KEY={HEX}",
        f"KAKAO_REST_API_KEY={HEX}",
        f"my api key is {HEX}",
        f"API 키는 {HEX} 입니다",
        f"API키: {KEY}",
        f"인증 토큰 {KEY} 이거 왜 안돼?",
        "aws_secret_access_key = wJalr9UtnFEMI/K7MDENG/bPxRfiCYzzyyxxKEYa",
        "secretAccessKey: 'wJalr9UtnFEMI/K7MDENG/bPxRfiCYzzyyxxKEYa'",
        f"Authorization: Bearer {KEY}",
        f"curl -H 'x-api-key: {KEY}'",
        "Authorization: Basic dXNlcjpwYXNzd29yZDEyMw==",
        f'"Authorization": "Token {HEX}"',
        "NAVER_CLIENT_SECRET=aB3dE5gH7j",
        f"HEROKU_API_KEY={HEX[:8]}-{HEX[8:12]}-{HEX[12:16]}-{HEX[16:20]}-{HEX[20:]}",
        f"https://a.example/?api_key={KEY}",
        f"AccountKey={KEY * 3}==;EndpointSuffix=x",
        f"os.environ['MISTRAL_API_KEY'] = '{KEY}'",
        f"nomoat --api-key {KEY}",
        f"- name: API_TOKEN\n  value: {KEY}",
        f"define('AUTH_KEY', '{KEY}');",
        f"JWT_SECRET={HEX}",
        f'{{\\"accessToken\\":\\"{HEX}\\"}}',
        f"serviceKey={KEY}%2B{KEY}%3D%3D",
        f"OPENAI_KEY={HEX}",
        "Authorization: Basic a2ltOnN1bmZsb3dlcg==",
        f"aes.key={HEX}",
        f"jwt.key: {KEY}",
        f'String aesKey = "{HEX}";',
        f"SEED_KEY={HEX}",
        '{"auths": {"registry.example": {"auth": "a2ltOlhrOW1RMnZMN3A="}}}',
        "//registry.example/:_auth=a2ltOnN1bmZsb3dlcg==",
        "jwt.secret=/8YNmNBuBVhQGojTDbANQMZ3pnSZvKWmFEn4a5zxRyU=",
        "ENCRYPTION_KEY=gq+/quN6KjTAoQEKm8+rO9//sRKazc1N12i9b84mvx8=",
        f"Authorization: KakaoAK {HEX}",
        f'"Authorization": "PortOne {KEY}"',
        f"Authorization: DeepL-Auth-Key {HEX[:8]}-{HEX[8:12]}-{HEX[12:16]}-{HEX[16:20]}-{HEX[20:]}:fx",
        f"일반 인증키(Encoding): {KEY}",
        f"TOSS_SECURITY_KEY={HEX}{HEX}",
        f"https://opendart.fss.or.kr/api/list.json?crtfc_key={HEX}{HEX[:8]}",
        f"PRIVATE_KEY=0x{HEX}{HEX}",
        "DB_PASSWORD=/8YNmNBuBVhQGojTDbANQMZ3",
    ],
)
def test_a_key_is_known_by_what_names_it(text: str) -> None:
    assert kinds(text) == {"api_key"}


@pytest.mark.parametrize(
    "text",
    [
        f"authorization: enabled\nclient_secret: {KEY}",
        f"security:\n  authorization: enabled\n  access_token: {KEY}",
        f"AUTHORIZATION=on\nSECRET_KEY={KEY}",
        f"authorization = required\nrefresh_token = {KEY}",
        f"spring.authorization: oidc\napp.client-secret: {KEY}",
        f"Authorization: none\nX-Auth-Token: {KEY}",
        f"Authorization: redacted\r\nX-Access-Token: {KEY}",
        f"authorization: Bearer\nclient_secret: {KEY}",
        f'"authorization": disabled\n"access_token": "{KEY}"',
        f'Authorization: OAuth consumer_secret="{KEY}"',
        f"Authorization: Custom access_key={KEY}",
        f"Authorization: Digest client_token={KEY}",
        f"authorization: see secret_key: {KEY}",
        f"토큰(신규): access_token={KEY}",
        f"토큰(token={KEY[:13]}): access_token",
        f"시크릿 키(운영)는 client_secret={KEY}",
    ],
)
def test_a_key_is_known_by_a_name_that_stands_where_another_has_its_value(text: str) -> None:
    assert kinds(text) == {"api_key"}


@pytest.mark.parametrize(
    "text",
    [
        "비밀번호는 qwer1234!",
        "비번 asdf1234야",
        "현관 비밀번호 2580*",
        "현관 비번은 48210이야",
        "와이파이 비번 : happy2024",
        "내 비번이 zxcv8899인데 안전해?",
        "password는 zxcv8899 이고",
        "**비밀번호**: zxcv8899",
        "wifi pw: abcd9876",
        "id kim pw zxcv8899",
        "DB_PASSWORD=hunter2hunter2",
        "SMTP_PASS=ab12cd34ef",
        '{"username":"kim","password":"S3cr3tP4ss!"}',
        "Password: correct1horse",
        "my password is hunter22 can you tell me if it's strong",
        "The root password for the box is zxcv8899.",
        "curl -u kim:Passw0rd!9 https://a.example",
        "mysql -ukim -pblue42sky db",
        "redis-cli -a blue42sky",
        "mysql --password S3cr3tXX",
        "CREATE USER kim WITH PASSWORD 'abc12ef';",
        "CREATE USER 'kim'@'%' IDENTIFIED BY 'Pw1!zzz';",
        "sshpass -p 'ab12cd34' ssh host",
        "Server=db;User Id=sa;Password=Str0ng!Pass;Encrypt=false",
        '<add key="DbPassword" value="S3cr3t9!"/>',
        "<password>S3cret91</password>",
        "const c = new Client({ user: 'kim', password: 'q1w2e3r4' })",
        "define('DB_PASSWORD', 'blue42sky');",
        "- name: DB_PASSWORD\n  value: blue42sky",
        "https://host/login?user=kim&password=abc99x&x=1",
        "`password`: `zxcv8899`",
        "kubectl create secret generic db --from-literal=password=blue42sky",
        "create user kim identified by 'blue42sky'",
        "grant all on db.* to kim identified by 'blue42sky'",
        "DB_PW=Zx12cv34",
        'my_pw = "Zx12cv34"',
        '{\\"pw\\":\\"Zx12cv34\\"}',
        "pw는 zxcv8899",
        "password: Xk2+9fLq",
        '"pass": "Zx12cv34"',
        "pass = 'Zx12cv34'",
        "암호: Zx12cv34",
        '"암호": "Zx12cv34"',
        "와이파이 암호는 48210이야",
        "비밀번호(임시): Zx12cv34",
        "비번 asdf1234",
        "비번 901204jh",
        "비번은 123456a",
        "비번 ab1-cd2",
        "패스워드는 qlalfqjsgh1 입니다",
        "비밀번호 : P@ssw0rd!23",
        "비밀번호를 입력해 주세요\n\nBlue42sky!",
        "비번이 뭐였죠?\n258013",
        "비밀번호 4자리를 입력해 주세요\n2580",
        "비밀번호를 알려 주시겠어요?  \nBlue42sky!",
        "암호가 뭐예요?\nBlue42sky!",
        "암호를 입력해 주세요\nBlue42sky!",
        "아이디,암호\nkim,Blue42sky!",
        "아이디,비밀번호,메모(선택)\n김,Blue42sky!,x",
        "비밀번호를 입력하십시오.\nBlue42sky!",
        "공동현관 비밀번호 있으세요?\n2580",
        "비밀번호 몇 번이에요?\n2580",
        "비밀번호 앞 2자리를 한 번 더 눌러 주세요\n2580",
        "비밀번호 확인 부탁드려요\n2580",
        "비밀번호 오류입니다. 다시 입력해 주세요\n2580",
        "현관 비밀번호 알려 주세요. 몇 시쯤 가면 되나요?\n2580",
        "비밀번호를 입력해 주세요. 길이는 4자리예요.\n2580",
        "비밀번호 알려 주세요, 내선으로 연락드릴게요\n2580",
        "지난 번에 쓰던 비밀번호 뭐였죠? 언제더라도 말씀해 주세요\n2580",
        "비밀번호 몇 번 이에요?\n2580",
        "비밀번호 입력 부탁드려요. 몇 시쯤 오시나요?\n2580",
        "비밀번호 알려 주고 몇 시에 오는지 말해 줘\n2580",
        "비밀번호 몇 번 입력하면 돼요?\n2580",
        "비밀번호가 만료됐으니 새 비번을 설정해 주세요\n2580",
        "암호문구를 입력해 주세요\nBlue42sky!",
        "암호문장을 입력해 주세요\nBlue42sky!",
        "| 이름(한글, 영문) | 비밀번호 |\n|---|---|\n| 김 | Blue42sky! |",
        "id\trole(admin,user)\tpassword\nkim\tuser\tBlue42sky!",
        "비밀번호: iso2580kim",
        "비밀번호: kim-iso-2580",
        "비밀번호: my_rfc2580",
        "비밀번호: love-iso27001",
        "wifi 비밀번호 rfc1234kim",
        "Password?\nBlue42sky!",
        "What is your password for the portal?\n\nBlue42sky!\n\nthanks",
        "id,password\nkim,Blue42sky!",
        "계정 목록\n아이디,비밀번호,부서\n김,미정,내과\n이,2580,외과",
        "| id | **password** |\n|---|---|\n| kim | `Blue42sky!` |",
        '"id";"pw"\r\n"kim";"Blue42sky!"',
    ],
)
def test_a_password_is_known_by_what_names_it(text: str) -> None:
    assert kinds(text) == {"api_key"}


@pytest.mark.parametrize(
    ("name", "num_bytes"), [("AccountKey=", 64), ("SharedAccessKey=", 32), ("jwt.secret=", 32), ("    token: ", 60)]
)
def test_a_random_key_in_base64_is_seen_whatever_it_begins_with(name: str, num_bytes: int) -> None:
    """3 % begin with `/` as paths do, or hold `//`. A few are mixed too little, by chance; drawn with a fixed seed."""
    draw = random.Random(4)
    keys = [base64.b64encode(draw.randbytes(num_bytes)).decode() for _ in range(1_000)]
    paths = [key for key in keys if key.startswith("/") or "//" in key]
    assert len(paths) > 20
    assert sum(kinds(f"{name}{key}") == set() for key in paths) <= 3
    assert sum(kinds(f"{name}{key}") == set() for key in keys[:200]) <= 2


WAYS: dict[str, Callable[[str], str]] = {
    "Oracle": lambda password: f"CREATE USER core IDENTIFIED BY {password};",
    "Oracle, over two lines": lambda password: f"alter user core\n  identified by {password} account unlock",
    "Oracle, grant": lambda password: f"GRANT connect, resource TO core IDENTIFIED BY {password}",
    "Oracle, link": lambda password: f"create database link l connect to core identified by {password} using 'ORCL'",
    "MySQL, plugin": lambda password: f"CREATE USER 'kim'@'%' IDENTIFIED WITH mysql_native_password BY '{password}';",
    "JDBC": lambda password: f"jdbc:oracle:thin:core/{password}@//db01:1521/ORCL",
    "sqlplus": lambda password: f"sqlplus -s core/{password}@ORCL @run.sql",
    "sqlplus alone": lambda password: f'sqlplus "sys/{password} as sysdba"',
    "tbsql": lambda password: f"tbsql tibero/{password}",
    "expdp": lambda password: f"expdp core/{password}@ORCL full=y",
    "sqlldr": lambda password: f"sqlldr userid=core/{password}@ORCL control=a.ctl",
    "rman": lambda password: f"rman target sys/{password}@ORCL",
    "conn": lambda password: f"SQL> conn core/{password}@ORCL",
    "Python, dsn": lambda password: f'cx_Oracle.connect("core/{password}@db01/ORCL")',
    "Python": lambda password: f'oracledb.connect("core", "{password}", "db01")',
    "Java": lambda password: f'DriverManager.getConnection("jdbc:oracle:thin:@db01", "core", "{password}");',
    "Java, names": lambda password: f'DriverManager.getConnection(url, user, "{password}");',
    "setter": lambda password: f'ds.setPassword("{password}");',
    "builder": lambda password: f'new Container().withPassword("{password}")',
    "builder's password": lambda password: f"DataSourceBuilder.create().password('{password}')",
    ".netrc": lambda password: f"machine git.example login kim password {password}",
    ".netrc, over lines": lambda password: f"machine git.example\n  login kim\n  password {password}",
    "keytool": lambda password: f"keytool -list -keystore a.jks -storepass {password}",
    "keytool, key": lambda password: f"keytool -genkeypair -keypass {password}",
    "openssl": lambda password: f"openssl rsa -in a.pem -passin pass:{password}",
    "Ansible": lambda password: f"web01 ansible_host=10.0.0.5 ansible_ssh_pass={password}",
    "Ansible, YAML": lambda password: f"ansible_become_pass: {password}",
    "settings": lambda password: f"db_pass={password}",
    "Kubernetes": lambda password: f"stringData:\n  db-pass: {password}",
    "docker login": lambda password: f"docker login -u kim -p {password} registry.example",
    "docker login, over lines": lambda password: f"docker login registry.example \\\n  -u kim \\\n  -p '{password}'",
    "requirepass": lambda password: f"requirepass {password}",
}


@pytest.mark.parametrize("way", WAYS)
def test_random_passwords_are_seen_where_databases_and_scripts_have_them(way: str) -> None:
    """Drawn with a fixed seed."""
    draw = random.Random(6)
    for _ in range(200):
        password = "Aa1" + "".join(draw.choices(string.ascii_letters + string.digits, k=7))
        assert kinds(WAYS[way](password)) == {"api_key"}, password


@pytest.mark.parametrize(
    "text",
    [
        "CREATE USER core IDENTIFIED BY core123;",
        "CREATE USER core IDENTIFIED BY &new_password2;",
        "ALTER USER core IDENTIFIED BY ${CORE_PW2}",
        "CREATE USER core IDENTIFIED EXTERNALLY;",
        "create user records that are identified by UUID4-values",
        "grant access to all users identified by OAuth2.0",
        "sqlplus $DB_USER/$DB_PASS2@$DB_HOST:1521/ORCL",
        "sqlplus %USER%/%PASS2%@ORCL",
        "sqlplus scott/tiger@orcl",
        "sqlplus hr/hr123@//db01:1521/ORCL",
        "sqlplus CORE_2A/CORE_2A@178.0.0.1:1521/XE",
        "sqlplus / as sysdba @run2.sql",
        "sqlplus core@ORCL2 @sql/create2tables.sql",
        "sqlplus sql/create_tables2.sql",
        "jdbc:oracle:thin:@//db01:1521/ORCL2",
        "jdbc:oracle:thin:@db01:1521:ORCL19c",
        "exp(a/b2) and imp x/y",
        "connect to server/db01 with 2 users",
        'user.setPassword("password123");',
        'user.setPassword("12345678");',
        'user.setPassword(encoder.encode("blue42sky"));',
        '.withPassword(System.getenv("DB_PW2"))',
        '.withPassword("${DB_PW2}")',
        "getConnection(url, user, password2)",
        'getConnection("jdbc:h2:mem:db1", "sa", "")',
        "machine git.example login kim password $TOKEN2",
        "login anonymous password user@site",
        "The login form asks for the password reset2fa",
        "keytool -list -storepass changeit -keypass ${KEY_PASS2}",
        "keytool -storepass:env KEY_PW2",
        "openssl rsa -passin env:KEY_PW2",
        "openssl rsa -passin pass:$KEY_PW2",
        "test_pass=45ms",
        "db_pass=${DB_PASS2}",
        'user_pass = request.form["pw2"]',
        "docker run -p 8080:80/tcp app2",
        "docker login && docker run -p 127.0.0.1:5432:5432/tcp db",
        "docker login\ndocker run -p 127.0.0.1:5432:5432/tcp db",
        "docker login -u kim -p $TOKEN2",
        "docker login -u kim -p ${{ secrets.REGISTRY_PW2 }}",
        '"auth": "bearer"',
        '"auth": "BTBZMqHH6r4Tts7J"',
        '"auth": "dXNlcjpwYXNz"',
        '"auth": {"type": "oauth2"}',
        "aes.key=src/main/resources/aes256.key",
        "aes key: 256-bit",
        "token: /home/Kim/Projects2024/Reports/FinalVersion3",
        "token: /a/b/c/d/e/f/g/h/i/j/k/l/m1",
        "PWD=/Users/kim/Documents/Work2024/AppSources/Main",
        "secret: //cdn/Assets2024/Images/Backgrounds/Large",
    ],
)
def test_what_databases_and_scripts_read_or_have_as_examples_is_no_password(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "redis://:p4ss@10.0.0.5",
        "postgres://admin:S3cr3tP4ss@db:5432/prod",
        "mongodb+srv://kim:pw!x@cluster0",
        "smb://kim:blue42sky@nas/share",
        "postgres://kim:npg_XyAbCdEfGhIj@db/x",
        "amqp://kim:tiger!@mq:5672/",
    ],
)
def test_a_password_in_an_address_is_seen(text: str) -> None:
    assert kinds(text) == {"api_key"}


@pytest.mark.parametrize(
    "text",
    [
        "OPENAI_API_KEY=your-api-key-here",
        "OPENAI_API_KEY=sk-your-openai-api-key-goes-here",
        'api_key = os.getenv("OPENAI_API_KEY")',
        'api_key="YOUR_API_KEY_1234567890"',
        "client = OpenAI(api_key=settings.openai_api_key_v2)",
        "api_key = loadKey2From3Env4Abc5[0]",
        "apiKey: process.env.NEXT_PUBLIC_API_KEY2",
        "AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "Authorization: Bearer $OPENAI_API_KEY",
        "Authorization: Bearer <token>",
        "Authorization: KakaoAK ${REST_API_KEY}",
        "Authorization: KakaoAK YOUR_REST_API_KEY2",
        "Authorization: header-of RFC7235-section-4.2",
        "Authorization: Bearer YOUR_ACCESS_TOKEN_HERE",
        'headers = {"Authorization": f"Bearer {self.access_token}"}',
        'WWW-Authenticate: Basic realm="User Visible Realm2024"',
        'tokenizer.pad_token = "<|endoftext|>"',
        "max_new_tokens=512, token_type_ids",
        'token="Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int4"',
        'private_key_path = "~/.ssh/id_ed25519"',
        "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==",
        "Authorization: Basic dXNlcjpwYXNz",
        "basic understanding-of-Kubernetes",
        f"CACHE_KEY={HEX}",
        "token = secrets.token_hex(16)",
        '"token": "node_modules/js-tokens-4.0.0"',
        f"commit {HEX}{HEX[:8]}",
        f'"sha256": "{HEX}{HEX}"',
        f"trace id {HEX}",
        "basic understanding-of-Kubernetes-v1.29-networking",
        "토큰 한도 128000-tokens-per-minute",
        "API 키는 환경변수 OPENAI_API_KEY로 읽어",
        "키: 180cm 몸무게: 75kg",
    ],
)
def test_examples_code_and_hashes_are_no_keys(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "DB_PASSWORD=${DB_PASSWORD}",
        "DB_PASSWORD=changeme123",
        "password: ${{ secrets.DB_PASSWORD }}",
        "POSTGRES_PASSWORD: postgres",
        "MYSQL_ROOT_PASSWORD: my-secret-pw",
        'password = os.environ["DB_PASSWORD2"]',
        "password: Optional[str] = None",
        "password: str = Field(min_length=8, max_length=64)",
        "password=hash_password(password1)",
        "password: passwordSchema2,",
        '"password": "password123"',
        'User.create(username="test", password="test1234")',
        "password: !vault |",
        "password: *default_pw1",
        "password=\"{{ lookup('env', 'PW1') }}\"",
        "if (password.length < 8 || !/[A-Z]/.test(password)) return 'weak1'",
        'label: "Password*",',
        '<input type="password" id="pw1" name="password2">',
        "docker run -u 1000:1000 -v $PWD:/app image",
        "PWD=/home/kim/v2",
        "cd `pwd`/build2",
        "mysqldump -u root -p db2 > dump.sql",
        "test_pass=45ms",
        "passlib[bcrypt]>=1.7.4",
        "password-validator@5.3.0",
        "Password must be at least 8 characters and contain 1 digit",
        "password policy: 8-20 characters",
        "the password is sent over TLS1.2",
        "at com.acme.auth.PasswordService2.check(PasswordService2.java:42)",
        "비밀번호는 8~20자 영문, 숫자 조합",
        "비밀번호는 1234자리",
        "비밀번호 4자리를 입력하세요",
        "비밀번호 Windows10 로그인",
        "비번 Galaxy23 잠금해제",
        "비밀번호는 MySQL8에서 바꿔요",
        "비밀번호 Ubuntu22.04 초기화",
        "비밀번호를 Oracle19c 에서 변경",
        "비밀번호는 Spring5Security에서",
        "비밀번호 1004 에러코드",
        "비밀번호를 3회 잘못 입력했습니다",
        "비밀번호는 2024년부터 바뀌었습니다",
        "비밀번호는 SHA-256으로 저장합니다",
        "비번 바꾸는 법",
        "암호는 AES-256",
        "패스워드리스 로그인 FIDO2",
        "The gene is identified by 'BRCA1'",
        "Each job is identified by `job-1234abc`.",
        "Password: 12-character minimum",
        "Passcode: 6-digit code sent by SMS",
        "Your passcode is 6-digit.",
        "password is md5-hashed",
        "The password is PBKDF2-SHA256 hashed",
        "비밀번호는 SHA-256/bcrypt로 해시합니다",
        "비밀번호 FIDO2로 대체하는 추세",
        "비밀번호는 OAuth2.0으로 관리",
        "비밀번호는 WPA2-PSK 방식",
        "password is 2FA-protected",
        "password: WPA2-PSK",
        "password: TEXT64",
        "password: int4",
        "가장 흔한 비밀번호는 123456 입니다",
        "비밀번호 123456, password, qwerty",
        "비밀번호 1234 같은 쉬운 번호는 쓰지 마세요",
        "비밀번호를 1111로 설정하지 마세요",
        "비밀번호(1234자리)는",
        "암호: ECDHE-RSA-AES256-GCM-SHA384",
        "암호는 2048비트",
        "암호 알고리즘 ARIA-128",
        '"pass": "2024-01-02T03:04:05"',
        '"pass": "v1.2.3-rc4"',
        "pass: depth24x8",
        "비밀번호를 바꾸고 싶은데 어떻게 하나요?\nWindows10",
        "How do I change my password?\nClick settings2 first",
        "비밀번호를 입력해 주세요\n네, 3번째입니다",
        "비밀번호를 입력해 주세요\n1234",
        "id,password\nkim,hunter2\nlee,test1234",
        "id,password,memo\nkim,Blue42sky!",
        "| field | password |\n|---|---|\n| type | varchar(20) |",
        "아이디,비밀번호\n\n표,Blue42sky!,x",
    ],
)
def test_examples_code_and_rules_are_no_passwords(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "self.pw_conv1 = nn.Conv2d(c, c, 1)",
        "x = self.dw_pw_block2",
        "pw_dim1 = 64",
        "PW1100G-JM 엔진 점검 주기가 어떻게 되나요?",
        "The PW1500G powers the A220.",
        "pw::rpc::v1",
        "PW: 20ms",
        "PW=100us",
        "PW=1000us",
        "PW: 4.5kW",
        "pw = 0.5*w1",
        "pw = x@W1",
        "pw = w1*h12",
        "PWD=~/proj2",
        "OLDPWD=./build2",
        "pwd = ../data1",
        "/etc/passwd:1:root:x:0:0:root:/root:/bin/bash",
        "/etc/passwd:systemd-network:x:998:998::/:/usr/sbin/nologin",
        "sqlmap -u localhost:8080/item?id=1",
        "gobuster dir -u target.local:8080/api/v1 -w list.txt",
        "docker run -u node:node2 app",
        "let password = rpassword::read_password_from_tty2?;",
        "비밀번호 만료일이 언제인가요?\n2024",
        "비밀번호 입력 오류 코드 알려 주세요\n4031",
        "비밀번호 입력 횟수가 몇 회예요?\n2580",
        "비밀번호 입력해도 오류 코드가 나와요\n4031",
        "비밀번호 알려주는 내선 알려 주세요\n4031",
        "비밀번호 어떻게 바꾸나요? 접수번호 알려 주세요\n20241234",
        "비밀번호? 접수번호부터 알려 주세요\n20241234",
        "비밀번호 오류가 몇 번 났나요?\n4096",
        "비밀번호 초기화 접수번호가 어떻게 되죠?\n20240115",
        "비밀번호를 몇 년에 바꿨어요?\n2019",
        "암호 키 길이를 알려 주세요\n2048",
        "암호자산은 어떤 게 있나요?\nBTC2024a",
        "암호 알고리즘이 뭐예요?\nSEED-128",
        "암호문을 알려 주세요\nxq3k9z!",
        "방식,암호\n대칭,SEED128",
        "비밀번호는 ISO-8601-1:2019 형식",
        "비밀번호는 rfc6238_totp",
        "비밀번호는 KS-ISO-27001",
        "비밀번호는 ISO27001/27002",
        "비밀번호 규칙을 알려줘\nRFC8018",
        "Which port does the password service use:\nlocalhost:8080",
        "cp(src, pwd, dst)\nrun(a, out2dir, b)",
        "종류,암호화\n문서,Blue42sky!",
    ],
)
def test_names_measures_and_paths_are_no_passwords(text: str) -> None:
    assert kinds(text) == set()


@pytest.mark.parametrize(
    "value",
    [
        "p@ssw0rd", "P@ssw0rd", "Passw0rd", "s3cr3t", "t0p-Secret", "minio123", "mongo123", "grafana1", "rabbit123", "demo1234",
        "dev123", "local_dev_1", "qwerty123", "abc123", "Welcome1", "hunter2", "${ELASTIC_PASSWORD:-elastic1}", "env:DB_PASS2",
        "vault:secret/data/db#pw1",
    ],
)  # fmt: skip
def test_what_examples_and_settings_write_is_no_password(value: str) -> None:
    assert kinds(f"POSTGRES_PASSWORD: {value}") == set()
    assert kinds(f"SA_PASSWORD={value}") == set()
    assert kinds(f'password = "{value}"') == set()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://USER:PASSWORD@HOST:5432/DB",
        "postgres://postgres:postgres@localhost/db",
        "mongodb://root:example@mongo:27017/",
        "redis://:password@localhost:6379/0",
        "https://${USER}:${PASS}@host/",
        'f"postgres://{user}:{pw1}@{host}/db"',
        "https://<user>:<password>@host",
        "https://oauth2:$TOKEN2@gitlab/x.git",
        "scheme://user:pass1@host",
        "http://localhost:8000/v1#m",
        "ssh://git@host:22/repo",
        "http://[user:password@]host[:port]",
        "http://username:p%40ss@host/",
        "postgres://elastic:elastic1@db/x",
        "postgres://user:npg_xxxxxxxxxxxx@localhost/db",
        "postgres://user:npg_yourpassword@localhost/db",
    ],
)
def test_examples_in_addresses_are_no_passwords(text: str) -> None:
    assert kinds(text) == set()
